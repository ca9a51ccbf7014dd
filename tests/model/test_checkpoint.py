import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from wsiseg.annotations import PALETTES
from wsiseg.errors import CheckpointError, ConfigError
from wsiseg.model.card import Card
from wsiseg.model.checkpoint import (
    CheckpointInfo,
    find_checkpoint,
    load_checkpoint,
    read_info,
    save_checkpoint,
    trained_state,
)
from wsiseg.model.construct import ConStruct
from wsiseg.model.encoders import load_encoder

INFO = CheckpointInfo(
    encoder="tiny", identity=load_encoder("tiny").identity, names=("Ähnlich", "B"),
    colors=((1, 2, 3), (4, 5, 6)), prompts=("one", "two"), prototypes_per_class=2, mpp=0.5,
    tile=224, config={"epochs": 3}, note="a note",
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> ConStruct:
    torch.manual_seed(0)
    model = ConStruct(load_encoder("tiny"), INFO.prompts, prototypes_per_class=2)
    for parameter in model.parameters():
        parameter.data += 0.01 * torch.randn(parameter.shape)
    return model.eval()


@pytest.fixture
def path(model, tmp_path) -> Path:
    return save_checkpoint(model, INFO, tmp_path / "new" / "m.safetensors")


def rewrite(path: Path, change) -> None:
    """Change a checkpoint's description on disk."""
    info = read_info(path)
    plain = {k: v for k, v in vars(info).items() if k != "sha256"} | {"format": 1}
    change(plain)
    save_file(load_file(path), path, {"wsiseg": json.dumps(plain)})


def test_comes_back_as_it_was(model, path):
    loaded, info = load_checkpoint(path)
    assert info == replace(INFO, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    assert read_info(path) == info
    assert not loaded.training
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(loaded(images).cams, model(images).cams)


def test_holds_the_trained_tensors_only(model, path):
    tensors = load_file(path)
    assert tensors.keys() == trained_state(model).keys()
    assert not [name for name in tensors if name.startswith(("encoder", "teacher"))]
    assert "prototypes" in tensors


def test_same_model_same_bytes(model, path, tmp_path):
    again = save_checkpoint(model, INFO, tmp_path / "again.safetensors")
    assert again.read_bytes() == path.read_bytes()


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.safetensors: no such checkpoint; .* tiny"):
        find_checkpoint(tmp_path / "none.safetensors")


def test_not_safetensors(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"\x80\x02}q\x00." * 20)
    with pytest.raises(CheckpointError, match=r"a\.pth: is a PyTorch file .*wsiseg model import"):
        load_checkpoint(tmp_path / "a.pth")
    (tmp_path / "a.bin").write_bytes(b"no tensors " * 20)
    with pytest.raises(CheckpointError, match=r"a\.bin: is not a safetensors file"):
        load_checkpoint(tmp_path / "a.bin")


def test_cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="is not a safetensors file"):
        load_checkpoint(path)


def test_another_programs_safetensors(path):
    save_file(load_file(path), path)
    with pytest.raises(CheckpointError, match="was not written by wsiseg"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.update(format=9), "has format 9, this wsiseg reads 1"),
        (lambda p: p.update(identity="tiny-0"), "trained on encoder 'tiny-0', this wsiseg has"),
        (lambda p: p.update(colors=[[1, 2, 3]]), "names 2 classes but 1 colours and 2 prompts"),
        (lambda p: p.update(prototypes_per_class=1), r"is \(4, 128\), should be \(2, 128\)"),
        (
            lambda p: p.update(names=list("abc"), colors=[[0, 0, 0]] * 3, prompts=list("abc")),
            "do not fit its 3 classes: prototypes is",
        ),
        (lambda p: p.pop("mpp"), "lacks or misnames a field"),
        (lambda p: p.update(names=["A", "A"]), r"m\.safetensors: names = .*'A' appears twice"),
        (lambda p: p.update(names=["A", " "]), r"m\.safetensors: names = .* none empty"),
        (lambda p: p.update(names="AB"), r"m\.safetensors: names = 'AB': needs one text"),
        (lambda p: p.update(names=[], colors=[], prompts=[]), r"names = \[\]: needs one text"),
        (
            lambda p: p.update(colors=[[1, 2, 3], [1, 2, 256]]),
            r"m\.safetensors: colors\.1 = \[1, 2, 256\]: needs red, green and blue",
        ),
        (lambda p: p.update(colors=[[1, 2], [1, 2, 3]]), r"colors\.0 = \[1, 2\]: needs red"),
        (lambda p: p.update(colors=[[1, 2, 0.5]] * 2), r"colors\.0 = \[1, 2, 0\.5\]: needs red"),
        (lambda p: p.update(mpp=0), r"m\.safetensors: mpp = 0: needs a finite number"),
        (lambda p: p.update(mpp=float("inf")), r"m\.safetensors: mpp = inf: needs a finite number"),
        (lambda p: p.update(mpp="0.5"), r"m\.safetensors: mpp = '0\.5': needs a finite number"),
        (lambda p: p.update(tile=0), r"m\.safetensors: tile = 0: needs a whole number of pixels"),
        (lambda p: p.update(tile=2.5), r"m\.safetensors: tile = 2\.5: needs a whole number"),
        (lambda p: p.update(pooling="most"), r"m\.safetensors: pooling = 'most': is none of mean"),
        (lambda p: p.update(background=2), r"background = 2: needs a whole number below .* 2"),
        (lambda p: p.update(background=-1), r"background = -1: needs a whole number"),
        (lambda p: p.update(preset="ours"), r"m\.safetensors: preset = 'ours': is none of refer"),
        (lambda p: p.update(guidance_levels=[4]), r"guidance_levels = \[4\]: needs some of"),
        (lambda p: p.update(guidance_levels=2), r"guidance_levels = 2: needs some of the levels"),
        (lambda p: p.update(prototypes_per_class=0), r"prototypes_per_class = 0: needs a whole"),
        (lambda p: p.update(prompts=["one", 2]), r"prompts = \['one', 2\]: needs one text per"),
        (lambda p: p.update(calibration=[[1, 0]]), r"calibration = .*an offset for each of 2"),
        (lambda p: p.update(calibration=[[0, 0]] * 2), r"calibration = .*a scale above 0"),
        (lambda p: p.update(calibration=[[1]] * 2), r"calibration = .*an offset for each of 2"),
        (
            lambda p: p.update(card={"licens": "MIT"}),
            r"m\.safetensors: card\.licens: Extra inputs are not permitted",
        ),
        (
            lambda p: p.update(card={"classes": {"Fat": "x"}}),
            r"m\.safetensors: card: classes names 'Fat'; the model's classes are Ähnlich, B",
        ),
    ],
)  # fmt: skip
def test_descriptions_that_do_not_fit(path, change, message):
    rewrite(path, change)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_prototypes_that_are_no_numbers(path):
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors["prototypes"][1, 2] = float("nan")
    save_file(tensors, path, metadata)
    with pytest.raises(CheckpointError, match=r"m\.safetensors: prototypes holds values that are"):
        load_checkpoint(path)


def test_a_card_comes_back_and_its_absence_too(model, tmp_path, path):
    card = Card(title="Two", classes={"B": "what B is"}, licence="MIT")
    carded = save_checkpoint(model, replace(INFO, card=card), tmp_path / "c.safetensors")
    assert read_info(carded).card == card
    assert read_info(path).card is None
    rewrite(path, lambda plain: plain.pop("card"))  # as files were written before there were cards
    assert read_info(path).card is None


@pytest.mark.parametrize("text", ["[1]", "3", "not JSON", "{}"])
def test_a_broken_description(path, text):
    save_file(load_file(path), path, {"wsiseg": text})
    with pytest.raises(CheckpointError, match="lacks or misnames a field"):
        read_info(path)


@pytest.mark.parametrize("preset", ["reference", "paper"])
def test_every_preset_comes_back(tmp_path, preset):
    torch.manual_seed(1)
    guided = {"preset": preset, "guidance_levels": (0, 2)}
    model = ConStruct(load_encoder("tiny"), INFO.prompts, prototypes_per_class=2, **guided)
    path = save_checkpoint(model.eval(), replace(INFO, **guided), tmp_path / "m.safetensors")
    loaded, info = load_checkpoint(path)
    assert (loaded.preset, loaded.guidance_levels) == (preset, (0, 2))
    assert (info.preset, info.guidance_levels) == (preset, (0, 2))
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(loaded(images).cams, model(images).cams)
    rewrite(path, lambda plain: plain.update(preset="wsiseg"))
    with pytest.raises(CheckpointError, match="should be absent"):
        load_checkpoint(path)


def test_the_recorded_commit_of_the_hub_is_asked_for(path):
    facts = {"source": "a/b/c.bin", "revision": "1f2e", "sha256": "0" * 64}
    rewrite(path, lambda plain: plain.update(weights={"encoder": facts}))
    with pytest.raises(ConfigError, match="no option 'revision'"):  # tiny knows no hub
        load_checkpoint(path)


def test_missing_and_foreign_tensors_are_named(model, path):
    tensors = load_file(path)
    del tensors["logit_scale"]
    tensors["visual.weight"] = torch.zeros(3)
    plain = {k: v for k, v in vars(read_info(path)).items() if k != "sha256"} | {"format": 1}
    save_file(tensors, path, {"wsiseg": json.dumps(plain)})
    with pytest.raises(
        CheckpointError,
        match=r"logit_scale is missing, should be \(\); visual.weight is \(3,\), should be absent",
    ):
        load_checkpoint(path)


def test_the_shipped_checkpoint_says_what_it_is_for():
    _, info = load_checkpoint("tiny")
    assert info.palette == PALETTES["bcss"]
    assert (info.mpp, info.tile, info.encoder) == (0.5, 224, "tiny")
    assert "not for real tissue" in info.note
    assert find_checkpoint("tiny").stat().st_size < 4e6
