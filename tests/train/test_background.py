"""A model that knows a kind of background takes patches with and without labels of it."""

import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from wsiseg.cli import app
from wsiseg.config import MasksConfig, TrainConfig
from wsiseg.distill import load_masks
from wsiseg.errors import DataError
from wsiseg.masks import write_masks
from wsiseg.model.checkpoint import read_info
from wsiseg.train import HeldOut, calibrate_checkpoint, load_patches, train_model

COLORS = ((150, 60, 150), (230, 150, 190), (250, 250, 250))
CONFIG = TrainConfig(
    classes=("A", "B", "Glass"), background=("Glass",), epochs=1, batch_size=4, device="cpu"
)
MASKS = MasksConfig(tta=1, refine=False, device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nine patches of three cases, with a digit for each of the two classes and for glass."""
    folder, rng = tmp_path_factory.mktemp("patches"), np.random.default_rng(0)
    for number in range(9):
        digits = "".join(str(int(number % 3 == k)) for k in range(3))
        pixels = rng.normal(COLORS[number % 3], 12, (64, 64, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"case{number // 3}_x{number}_y0[{digits}].png")
    return folder


@pytest.fixture(scope="module")
def shorter(folder, tmp_path_factory):
    """The same without the digit of glass."""
    shorter = tmp_path_factory.mktemp("shorter")
    for image in folder.iterdir():
        shutil.copy(image, shorter / image.name.replace(image.name[-6:], "].png"))
    return shorter


@pytest.fixture(scope="module")
def model(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("model") / "m.safetensors"
    return train_model(load_patches(folder, CONFIG.classes), CONFIG, out)


def list_pixels(rows):
    return [np.asarray(Image.open(row.mask)).tolist() for row in rows]


def test_its_masks_are_gated_by_labels_with_and_without_background(
    model, folder, shorter, tmp_path
):
    rows = write_masks(model, folder, tmp_path / "all", MASKS)
    assert [row.classes for row in rows] == [("A",), ("B",), ()] * 3
    assert list_pixels(rows) == list_pixels(write_masks(model, shorter, tmp_path / "few", MASKS))
    windows = load_masks(tmp_path / "all", folder)
    assert (len(windows), windows.palette.names) == (9, ("A", "B"))


def test_masks_of_a_table_teach_whatever_its_labels(model, folder, tmp_path):
    table = folder / "patches.csv"
    shown = ("A", "B", "Glass")
    names = sorted(path.name for path in folder.glob("*.png"))
    lines = [f"{name},{shown[at % 3]},case {at % 2}" for at, name in enumerate(names)]
    table.write_text("\n".join(["image,labels,case", *lines]))
    rows = write_masks(model, table, tmp_path / "masks", MASKS)
    assert [row.classes for row in rows] == [("A",), ("B",), ()] * 3
    open_gates = MASKS.model_copy(update={"gate": "none"})
    assert write_masks(model, table, tmp_path / "open", open_gates)[0].classes == ("A", "B")
    windows = load_masks(tmp_path / "masks", table)
    assert set(windows.cases) == {"case 0", "case 1"}
    table.write_text("\n".join(["image,Glass slide,Patients", f"{names[0]},1,0"]))
    assert load_masks(tmp_path / "masks", table).names == (names[0],)
    table.write_text(f"image\n{names[0]}\n{names[0]}\n")
    with pytest.raises(DataError, match=r"line 3: .* was given in line 2 with the same labels"):
        load_masks(tmp_path / "masks", table)
    table.write_text("labels\nA\n")
    with pytest.raises(DataError, match="needs 'image'"):
        load_masks(tmp_path / "masks", table)
    table.unlink()


def test_it_is_calibrated_on_labels_with_and_without_background(model, folder, shorter, tmp_path):
    for name, data in (("all", folder), ("few", shorter)):
        out = tmp_path / f"{name}.safetensors"
        done = CliRunner().invoke(
            app, ["model", "calibrate", str(model), str(data), "-o", str(out)]
        )
        assert done.exit_code == 0, done.output
        assert len(read_info(out).calibration) == 3
    only = load_patches(shorter, ("A", "B"), to_learn=False)
    again = calibrate_checkpoint(model, only, tmp_path / "again.safetensors")
    few = tmp_path / "few.safetensors"
    assert read_info(again).calibration == read_info(few).calibration


def test_labels_without_background_say_nothing_of_it(shorter, tmp_path):
    load = {"background": ("Glass", "Pen"), "to_learn": False}
    labels = load_patches(shorter, ("A", "B"), **load).labels
    assert labels[0, :2].tolist() == [1, 0]
    assert np.isnan(labels[:, 2:]).all()
    table, name = shorter / "t.csv", sorted(shorter.glob("*.png"))[0].name
    table.write_text(f"image,A,B\n{name},0,1\n")
    assert np.isnan(load_patches(table, ("A", "B"), **load).labels[0, 2:]).all()
    table.write_text(f"image,A,B,Glass\n{name},0,1,0\n")
    with pytest.raises(DataError, match="needs image and either labels or A, B, Glass, Pen"):
        load_patches(table, ("A", "B"), **load)
    table.unlink()
    with pytest.raises(DataError, match=r"9 problem\(s\).*\n.*2 digits.*; 3 or 5 of 0 or 1 are ne"):
        load_patches(shorter, ("A", "B", "C"), **load)


def test_the_epoch_is_chosen_by_labels_with_and_without_background(model, folder, shorter):
    from wsiseg.cli.validation import open_other
    from wsiseg.model.trained import load_trained

    source = load_trained(model)
    for data in (folder, shorter):
        validate, _ = open_other(data, CONFIG.classes, ("A", "B"))
        assert isinstance(validate, HeldOut)
        validate.check(source)
        assert np.isfinite(validate(source))
