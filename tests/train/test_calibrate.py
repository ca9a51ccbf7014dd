import csv

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from wsiseg.cli import app
from wsiseg.errors import ConfigError, DataError
from wsiseg.evaluate.reliability import measure_reliability
from wsiseg.model.checkpoint import read_info
from wsiseg.model.trained import load_trained
from wsiseg.train import calibrate_checkpoint, load_patches
from wsiseg.train.calibrate import read_cells

NAMES = ("Tumor", "Stroma", "Immune cells", "Necrosis")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Patches of one colour each; the last shows two classes, and none shows the last class."""
    folder, rng = tmp_path_factory.mktemp("patches"), np.random.default_rng(0)
    rows = [["image", "labels"]]
    for number in range(13):
        colour = ((120, 40, 130), (230, 150, 190), (90, 60, 160))[number % 3]
        pixels = np.clip(rng.normal(colour, 25, (64, 64, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append([f"{number}.png", NAMES[number % 3] if number < 12 else "Tumor;Stroma"])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "labels.csv"


def error_of(checkpoint, patches):
    """The calibration error over the cells of the patches of one class."""
    source = load_trained(checkpoint)
    logits, classes = read_cells(source, patches, np.arange(12))
    if source.calibration:
        scale, offset = torch.tensor(source.calibration).T
        logits = logits * scale + offset
    sure, label = logits.softmax(1).max(1)
    return measure_reliability(sure.numpy(), (label == classes).numpy()).ece


def test_confidence_is_nearer_the_truth_afterwards(tmp_path, table):
    patches = load_patches(table, NAMES, to_learn=False)
    steps = []
    out = calibrate_checkpoint(
        "tiny", patches, tmp_path / "c.safetensors", progress=lambda *step: steps.append(step)
    )
    assert steps[-1] == ("calibrate", 12, 12), "the one of two classes is left out"
    assert len(read_info(out).calibration) == 4
    assert error_of(out, patches) < error_of("tiny", patches)


def test_a_cells_class_is_its_patchs(table):
    patches = load_patches(table, NAMES, to_learn=False)
    logits, classes = read_cells(load_trained("tiny"), patches, [0, 1])
    assert logits.shape == (2 * 49, 4)
    assert classes.tolist() == [0] * 49 + [1] * 49


def test_patches_of_several_classes_only_are_refused(tmp_path, table):
    patches = load_patches(table, NAMES, to_learn=False)
    mixed = type(patches)(patches.paths[12:], patches.labels[12:], patches.side)
    with pytest.raises(DataError, match="of 1 patches with 4 classes, 0 show one only"):
        calibrate_checkpoint("tiny", mixed, tmp_path / "c.safetensors")


def test_the_command_writes_a_copy_and_keeps_what_is_there(tmp_path, table):
    out = tmp_path / "c.safetensors"
    done = CliRunner().invoke(app, ["model", "calibrate", "tiny", str(table), "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert read_info(out).calibration
    again = CliRunner().invoke(app, ["model", "calibrate", "tiny", str(table), "-o", str(out)])
    assert again.exit_code != 0
    patches = load_patches(table, NAMES, to_learn=False)
    with pytest.raises(ConfigError, match="already exists"):
        calibrate_checkpoint("tiny", patches, out)
