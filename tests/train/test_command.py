import re

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from wsiseg.cli import app
from wsiseg.model.checkpoint import read_info

SMALL = ["--set", "classes=[A, B]", "--set", "epochs=1", "--set", "device=cpu"]


@pytest.fixture
def patches(tmp_path):
    folder = tmp_path / "patches"
    folder.mkdir()
    for number, digits in enumerate(("10", "01", "11")):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}[{digits}].png")
    return folder


def call(*args):
    return CliRunner().invoke(app, ["train", *map(str, args)])


def test_a_dry_run_counts_and_writes_nothing(patches, tmp_path):
    result = call(patches, "-o", tmp_path / "m.safetensors", *SMALL, "--dry-run")
    assert result.exit_code == 0, result.output
    for name, count in (("patches", "3"), ("steps", "1"), ("frozen parameters", "[0-9,]+")):
        assert re.search(rf"{name} +{count}", result.output), result.output
    learning, marked = (
        re.search(rf"{name} parameters +([0-9,]+)", result.output)[1]
        for name in ("learning", "marked")
    )
    assert learning == marked, "the default preset holds no dead weight"
    assert list(tmp_path.iterdir()) == [patches]


def test_settings_of_the_command_line_reach_the_checkpoint(patches, tmp_path):
    out = tmp_path / "m.safetensors"
    result = call(patches, "-o", out, *SMALL, "--set", "preset=paper")
    assert result.exit_code == 0, result.output
    info = read_info(out)
    assert (info.names, info.preset, info.config["epochs"]) == (("A", "B"), "paper", 1)


def test_a_card_reaches_the_checkpoint(patches, tmp_path):
    out, card = tmp_path / "m.safetensors", tmp_path / "card.yaml"
    card.write_text("title: Two\nlabels: drawn at random\nclasses: {A: the first}\n")
    result = call(patches, "-o", out, *SMALL, "--card", card)
    assert result.exit_code == 0, result.output
    kept = read_info(out).card
    assert (kept.title, kept.labels, kept.classes) == (
        "Two", "drawn at random", {"A": "the first"},
    )  # fmt: skip
    assert [(data.patches, len(data.identity)) for data in kept.data] == [(3, 64)]


def test_a_card_of_other_classes_is_refused_before_training(patches, tmp_path):
    card = tmp_path / "card.yaml"
    card.write_text("classes: {Fat: x}\n")
    result = call(patches, "-o", tmp_path / "m.safetensors", *SMALL, "--card", card, "--dry-run")
    assert result.exit_code == 1
    assert "card.yaml: classes names 'Fat'; the model's classes are A, B" in result.output


def test_a_wrong_encoder_option_is_one_line(patches, tmp_path):
    option = ("--set", "encoder_options.sise=3")
    result = call(patches, "-o", tmp_path / "m.safetensors", *SMALL, *option)
    assert result.exit_code == 1
    assert "has no option 'sise'; it takes none" in result.output


def test_settings_are_refused_before_patches_are_read(tmp_path):
    (tmp_path / "patches.csv").write_text("image,A,B\nnone.png,1,0\n")
    for option, message in (
        ("encoder_options.sise=3", "has no option 'sise'"), ("colors=[[1, 2, 3]]", "colors has 1"),
    ):  # fmt: skip
        out = ("-o", tmp_path / "m.safetensors")
        result = call(tmp_path / "patches.csv", *out, *SMALL, "--set", option)
        assert result.exit_code == 1
        assert message in result.output
        assert "none.png" not in result.output


@pytest.fixture
def cases(tmp_path):
    """A table of three cases, four patches each."""
    rows, folder = ["image,labels,case"], tmp_path / "cases"
    folder.mkdir()
    for number in range(12):
        color = (230, 150, 190) if number % 2 else (120, 90, 170)
        noise = np.random.default_rng(number).normal(0, 8, (64, 64, 3))
        Image.fromarray((noise + color).clip(0, 255).astype(np.uint8)).save(
            folder / f"{number}.png"
        )
        rows.append(f"{number}.png,{'AB'[number % 2]},case {number // 4}")
    table = folder / "patches.csv"
    table.write_text("\n".join(rows))
    return table


def test_a_share_of_the_cases_chooses_the_epoch(cases, tmp_path):
    out = tmp_path / "m.safetensors"
    result = call(cases, "-o", out, *SMALL, "--validate", "0.4", "--dry-run")
    assert re.search(r"held out +4 patches of 1 case\(s\)", result.output), result.output
    assert re.search(r"patches +8", result.output)
    result = call(cases, "-o", out, *SMALL, "--set", "epochs=3", "--validate", "0.4")
    assert result.exit_code == 0, result.output
    assert "best epoch by 4 patches of 1 case(s)" in result.output
    table = out.with_name("m.safetensors.validation.csv").read_text().splitlines()
    assert table[0] == "epoch,minus the mean class loss of the patches held out"
    assert len(table) == 4


def test_a_folder_with_masks_chooses_as_the_released_code_does(cases, tmp_path):
    for name, mode in (("img", "RGB"), ("mask", "L")):
        (tmp_path / "set" / "valid" / name).mkdir(parents=True)
        Image.new(mode, (64, 64)).save(tmp_path / "set" / "valid" / name / "0.png")
    out = tmp_path / "m.safetensors"
    result = call(cases, "-o", out, *SMALL, "--validate", tmp_path / "set")
    assert result.exit_code == 0, result.output
    table = out.with_name("m.safetensors.validation.csv").read_text().splitlines()
    assert table[0].startswith('epoch,"mean IoU of the masks held out')
    assert len(table) == 2
    given = [cases, "-o", out, *SMALL, "--validate", tmp_path / "set"]
    assert call(*given).exit_code == 0, "it is finished"
    Image.new("L", (64, 64), 1).save(tmp_path / "set" / "valid" / "mask" / "0.png")
    result = call(*given)
    assert result.exit_code == 1
    assert "is the finished model of other settings" in result.output, "a mask was mended"


def test_a_folder_with_labels_chooses_too(cases, patches, tmp_path):
    out = tmp_path / "m.safetensors"
    result = call(cases, "-o", out, *SMALL, "--validate", patches)
    assert result.exit_code == 0, result.output
    assert "best epoch by 3 patches with labels" in result.output


@pytest.mark.parametrize("share", ["0", "1.5", "nowhere"])
def test_what_validates_nothing_is_refused(patches, tmp_path, share):
    result = call(patches, "-o", tmp_path / "m.safetensors", *SMALL, "--validate", share)
    assert result.exit_code == 1
    assert f"--validate {share}: is neither a folder, a table, nor a share" in result.output


def test_a_dry_run_refuses_what_the_run_would_refuse(cases, patches, tmp_path):
    out, dry = tmp_path / "m.safetensors", "--dry-run"
    given = [cases, "-o", out, *SMALL]
    assert call(*given).exit_code == 0
    before = {path: path.read_bytes() for path in tmp_path.glob("m.*")}
    assert call(*given, dry).exit_code == 0, "it is finished"
    other = [*given, "--set", "learning_rate=0.1"]
    result = call(*other, dry)
    assert result.exit_code == 1
    assert "is the finished model of other settings" in result.output
    assert call(*other, dry, "--overwrite").exit_code == 0
    unfinished = tmp_path / "m.safetensors.unfinished"
    unfinished.write_bytes(b"cut")
    assert "cannot be read" in call(*given, dry).output
    unfinished.unlink()
    assert {path: path.read_bytes() for path in tmp_path.glob("m.*")} == before


def test_a_dry_run_looks_at_the_data_that_chooses_the_epoch(patches, tmp_path):
    for name, mode in (("img", "RGB"), ("mask", "L")):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.new(mode, (50, 50)).save(tmp_path / "set" / name / "0.png")
    given = [patches, "-o", tmp_path / "m.safetensors", *SMALL, "--validate", tmp_path / "set"]
    messages = {call(*given).output, call(*given, "--dry-run").output}
    assert len(messages) == 1
    assert "50" in messages.pop()


def test_a_dry_run_looks_for_the_device(patches, tmp_path):
    device = ("--set", "device=cuda:7", "--dry-run")
    result = call(patches, "-o", tmp_path / "m.safetensors", *SMALL, *device)
    assert result.exit_code == 1
    assert "device 'cuda:7' is not available" in result.output
