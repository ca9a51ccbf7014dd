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
