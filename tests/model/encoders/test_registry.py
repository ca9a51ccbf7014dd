"""Encoders by name and option, and checkpoints that say which weights they need."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from wsiseg.config import TrainConfig
from wsiseg.errors import CheckpointError, ConfigError, DataError, MissingDependencyError
from wsiseg.model.checkpoint import load_checkpoint, read_info, trained_state
from wsiseg.model.construct import ConStruct
from wsiseg.model.encoders import (
    ENCODERS,
    TEACHERS,
    check_options,
    default_teacher,
    keep_portable,
    load_encoder,
    load_teacher,
)
from wsiseg.model.weights import read_tensors
from wsiseg.train import (
    RELEASED,
    Patches,
    check_settings,
    describe_training,
    import_released,
    train_model,
)

CLASSES = ("Pink", "Blue")


def test_an_unknown_option_lists_what_is_accepted() -> None:
    with pytest.raises(ConfigError, match=r"TinyEncoder .* no option 'size'; it takes none"):
        load_encoder("tiny", size=3)
    with pytest.raises(ConfigError, match=r"ConchEncoder .* 'weigths'; it takes weights, revis"):
        load_encoder("conch", weigths="a")
    with pytest.raises(ConfigError, match=r"SegformerTeacher of teacher 'segformer' .* strides$"):
        load_teacher("segformer", stride=4)
    with pytest.raises(ConfigError, match=r"OpenClipEncoder .* it takes model, weights, revision"):
        load_encoder("open_clip", image_size=3)


def test_the_registry_knows_the_options_of_every_class() -> None:
    """So that a misspelt one is told before its module is imported."""
    for known in (ENCODERS, TEACHERS):
        for name, entry in known.items():
            module, attribute = entry.place.split(":")
            made = getattr(import_module(module), attribute)
            assert tuple(inspect.signature(made).parameters) == entry.options, name
            if known is ENCODERS:
                assert hasattr(made, "embed_text") == entry.texts, name
                assert entry.teacher in TEACHERS, name


def test_a_misspelt_option_costs_no_import() -> None:
    code = (
        "import sys\n"
        "from wsiseg.errors import ConfigError\n"
        "from wsiseg.model.encoders import load_encoder\n"
        "try:\n    load_encoder('conch', weigths='a')\n"
        "except ConfigError:\n    pass\n"
        "assert not {'timm', 'transformers', 'tokenizers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_missing_tokenizer_is_told_before_a_tower_is_looked_for(patches: Patches) -> None:
    config = conch_config(Path("no/such/file.bin"), prototypes="text")
    with pytest.raises(CheckpointError, match=r"tokenizer: .* encoder_options\.tokenizer=PATH"):
        describe_training(patches, config)
    options = {"weights": "none.bin", "tokenizer": "none.json"}
    with pytest.raises(CheckpointError, match=r"none\.json: no such file"):
        check_options("conch", options, texts=True)
    check_options("conch", options | {"texts": "embedded.safetensors"}, texts=True)
    check_options("conch", options)


def test_every_name_of_the_registry_is_one_of_the_settings() -> None:
    for name in ENCODERS:
        check_settings(TrainConfig(encoder=name, prototypes="random"))
    with pytest.raises(
        ConfigError, match="encoder 'big' is unknown; known are conch, ensemble, lite, open"
    ):
        load_encoder("big")


@pytest.mark.parametrize(("load", "name"), [(load_encoder, "conch"), (load_teacher, "segformer")])
def test_a_damaged_or_harmful_weight_file_is_refused(
    load: Callable[..., object], name: str, tmp_path: Path
) -> None:
    torch.save({"a": torch.ones(1000)}, tmp_path / "whole.bin")
    (tmp_path / "cut.bin").write_bytes((tmp_path / "whole.bin").read_bytes()[:2000])
    torch.save({"a": Path("x")}, tmp_path / "code.bin")
    with pytest.raises(CheckpointError, match=r"cut\.bin: cannot be read as a weight file \(2000"):
        load(name, weights=tmp_path / "cut.bin")
    with pytest.raises(CheckpointError, match=r"code\.bin: holds code \(pathlib\."):
        load(name, weights=tmp_path / "code.bin")
    with pytest.raises(CheckpointError, match=r"whole\.bin: is not .* \(another model's file\?\)"):
        load(name, weights=tmp_path / "whole.bin")


def test_lists_become_tuples(hollow_conch: Path) -> None:
    encoder = load_encoder("conch", weights=hollow_conch, image_size=32, mean=[0.1, 0.2, 0.3])
    assert encoder.mean == (0.1, 0.2, 0.3)


def test_only_paths_are_not_portable(tmp_path: Path) -> None:
    options = {"weights": str(tmp_path), "texts": tmp_path / "no", "image_size": 448}
    hub = {"weights": "MahmoodLab/CONCH", "mean": (0.1, 0.2, 0.3)}
    assert keep_portable(options | {"tokenizer": "/no/such/file"}) == {"image_size": 448}
    assert keep_portable(hub) == hub


def test_what_is_portable_does_not_hang_on_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MahmoodLab/CONCH", "ViT-B-16", "w.safetensors"):
        (tmp_path / name).mkdir(parents=True)
    options = {"weights": "MahmoodLab/CONCH", "model": "ViT-B-16", "texts": "w.safetensors"}
    before = keep_portable(options)
    monkeypatch.chdir(tmp_path)
    assert keep_portable(options) == before == {k: options[k] for k in ("weights", "model")}
    paths = {"a": "./x", "b": "~/x", "c": "some/where/else", "d": "hf-hub:a/b"}
    assert keep_portable(paths) == {"d": "hf-hub:a/b"}


@pytest.fixture
def patches(tmp_path: Path) -> Patches:
    for number in range(4):
        pixels = np.full((32, 32, 3), 60 * number, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    paths = tuple(tmp_path / f"{number}.png" for number in range(4))
    return Patches(paths, np.eye(2, dtype=np.float32)[[0, 1, 0, 1]], 32)


def conch_config(weights: Path, **changes: Any) -> TrainConfig:
    options = {"weights": str(weights), "image_size": 32}
    settings: dict[str, Any] = {
        "encoder": "conch", "encoder_options": options, "prototypes": "random",
        "classes": CLASSES, "struct_weight": 0.0, "contrast_shrink": 1, "epochs": 1,
    }  # fmt: skip
    return TrainConfig.model_validate(settings | changes)


def test_a_checkpoint_names_its_encoders_weights_but_no_path(
    hollow_conch: Path, patches: Patches, tmp_path: Path
) -> None:
    out = train_model(patches, conch_config(hollow_conch), tmp_path / "m.safetensors")
    info = read_info(out)
    assert info.encoder_options == info.config["encoder_options"] == {"image_size": 32}
    weights = info.weights["encoder"]
    assert (weights["source"], weights["revision"]) == ("pytorch_model.bin", "")
    assert info.identity == f"conch-32-{weights['sha256'][:16]}"
    assert str(hollow_conch.parent).encode() not in out.read_bytes()
    with pytest.raises(
        CheckpointError, match=r"weights from a file, pytorch_model\.bin \(sha256 .*'weights' \("
    ):
        load_checkpoint(out)
    model, _ = load_checkpoint(out, {"weights": hollow_conch})  # no tokenizer, no text tower
    assert model(torch.rand(1, 3, 32, 32)).cams.shape == (1, 2, 1, 1)


def test_a_released_checkpoint_is_imported_with_the_weights_that_it_was_trained_on(
    hollow_conch: Path, tmp_path: Path
) -> None:
    options = {"weights": str(hollow_conch), "image_size": 32}
    config = RELEASED.model_copy(update={"classes": CLASSES, "encoder_options": options})
    encoder = load_encoder("conch", **options)
    model = ConStruct(encoder, torch.rand(2, 512), preset="reference")
    tensors = {n.replace("l_fc.", "l_fc4."): t for n, t in trained_state(model).items()}
    name = "clip_adapter.model.visual.proj_contrast"
    tensors[name] = read_tensors(hollow_conch)["visual.proj_contrast"]
    torch.save({"model": tensors}, tmp_path / "best_cam.pth")
    out = import_released(tmp_path / "best_cam.pth", tmp_path / "x.safetensors", config)
    assert read_info(out).encoder_options == {"image_size": 32}
    loaded, _ = load_checkpoint(out, {"weights": hollow_conch})
    assert torch.equal(loaded.prototypes, model.prototypes)
    tensors[name] = tensors[name] + 1
    torch.save({"model": tensors}, tmp_path / "best_cam.pth")
    with pytest.raises(CheckpointError, match=r"trained on other weights than .*proj_contrast"):
        import_released(tmp_path / "best_cam.pth", tmp_path / "y.safetensors", config)


def test_patches_and_regions_must_fit_the_encoder(hollow_conch: Path, patches: Patches) -> None:
    options = {"weights": str(hollow_conch), "image_size": 64}
    larger = conch_config(hollow_conch, encoder_options=options)
    with pytest.raises(DataError, match="are 32 px a side; encoder 'conch' was made for 64"):
        describe_training(patches, larger)
    with pytest.raises(ConfigError, match="contrast_shrink = 2 gives regions of 16 px"):
        describe_training(patches, conch_config(hollow_conch, contrast_shrink=2))


class Added(torch.nn.Module):
    """What a package of somebody else's might add: no text tower, one option."""

    identity, level_channels, level_strides = "added-1", (4, 4, 4, 4), (4, 8, 16, 32)
    embedding_dim, cam_level, guidance_levels, equivariant = 6, 2, (2,), True
    mean = region_mean = (0.5, 0.5, 0.5)
    region_std = (0.2, 0.2, 0.2)

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain

    def pyramid(self, images: torch.Tensor, levels: Any = (0, 1, 2, 3)) -> list[torch.Tensor]:
        pooled = [torch.nn.functional.avg_pool2d(images, self.level_strides[i]) for i in levels]
        return [torch.cat([one, one.mean(1, keepdim=True)], 1) * self.gain for one in pooled]

    def embed_image(self, images: torch.Tensor) -> torch.Tensor:
        facts = torch.cat([images.mean((2, 3)), images.std((2, 3))], 1)
        return torch.nn.functional.normalize(facts, dim=1)

    embed_normalized = embed_image


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution with an entry point, as pip leaves it."""
    info = tmp_path / "lab_encoders-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-encoders\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[wsiseg.encoders]\nlab = {__name__}:Added\n"
        f"broken = no_such_module:A\ntiny = {__name__}:A\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


def test_a_package_adds_an_encoder_that_trains_and_loads(
    installed: None, patches: Patches, tmp_path: Path
) -> None:
    config = TrainConfig(
        encoder="lab", encoder_options={"gain": 2.0}, classes=CLASSES, epochs=1, device="cpu",
        contrast_weight=0.0,
    )  # fmt: skip
    out = train_model(patches, config, tmp_path / "m.safetensors")
    info = read_info(out)
    assert (info.encoder, info.identity, info.encoder_options) == ("lab", "added-1", {"gain": 2.0})
    model, _ = load_checkpoint(out)
    assert model.encoder.gain == 2.0  # type: ignore[attr-defined]
    assert type(load_encoder("tiny")).__name__ == "TinyEncoder", "our own names are ours"
    with pytest.raises(ConfigError, match=r"Added of encoder 'lab' has no option 'gian'; .* gain$"):
        check_options("lab", {"gian": 1})
    with pytest.raises(ConfigError, match="encoder 'lab' has no text tower"):
        check_options("lab", {}, texts=True)
    with pytest.raises(
        ConfigError, match="encoder 'big' is unknown; known are broken, conch, ensemble, lab"
    ):
        load_encoder("big")
    with pytest.raises(MissingDependencyError, match="no_such_module: pip install 'lab-encoders'"):
        load_encoder("broken")


def test_the_teacher_is_a_key_of_its_own(patches: Patches, tmp_path: Path) -> None:
    config = TrainConfig(encoder="small", teacher="big", classes=CLASSES)
    with pytest.raises(ConfigError, match="teacher 'big' is unknown; known are segformer, tiny"):
        check_settings(config)
    assert default_teacher("small") == "tiny"
    assert default_teacher("timm") == "segformer"
    with pytest.raises(ConfigError, match="SegformerTeacher of teacher 'segformer' has no option"):
        check_settings(
            TrainConfig(encoder="tiny", teacher="segformer", teacher_options={"stride": 1})
        )
