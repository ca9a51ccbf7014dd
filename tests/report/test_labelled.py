import csv
import json
import shlex

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from wsiseg.cli import app
from wsiseg.labels import label_slides
from wsiseg.report.labelled import draw_labels, write_labels
from wsiseg.tissue.outline import write_mask

from ..labels.slides import CLASSES, COLORS, TILE, make_store
from ..labels.test_forms import collection, feature, polygon, square


def write(folder, name="one", *features):
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.geojson"
    path.write_text(json.dumps(collection(*features)))
    return path


def test_the_command_says_what_was_found_and_draws_it(tmp_path):
    store, other = make_store(tmp_path), make_store(tmp_path, "two")
    labels = tmp_path / "labels"
    write(
        labels, "one", feature("Pink", polygon(square(0, 0, 2, 2))),
        feature("Blue", polygon(square(0, 4))), feature("blue", polygon(square(1, 4))),
    )  # fmt: skip
    call = ["label", str(labels), str(tmp_path), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    assert "'Blue', 'blue' look like one class" in result.output
    assert "not labelled: two" in result.output
    following = f"Learn from them: wsiseg learn {tmp_path} --labels {labels}"
    assert f"{following} -o my.safetensors --from tissue\n" in result.output
    patients = tmp_path / "my patients.csv"
    patients.write_text("slide,patient\none,P\ntwo,Q\n")
    options = ["--map", "blue=Blue", "--manifest", str(patients), "--set"]
    result = CliRunner().invoke(app, [*call, *options, "corrected_weight=2"])
    assert "look like one class" not in result.output
    given = shlex.join([*options, "labels.corrected_weight=2"])
    assert f"{following} {given} -o my.safetensors --from tissue\n" in result.output
    rows = list(csv.DictReader((tmp_path / "out" / "labels.csv").open()))
    assert [(r["slide"], r["class"], r["regions"], r["windows with"]) for r in rows] == [
        ("one", "Blue", "2", "2"), ("one", "Pink", "1", "4"),
    ]  # fmt: skip
    assert Image.open(tmp_path / "out" / "one.png").size == (store.grid.width, store.grid.height)
    write(labels, "three", feature("Pink", polygon(square(0, 0))))
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 1
    assert "no store of slide 'three'; there are one, two" in result.output
    assert "Learn from them" not in result.output
    assert other.path.exists()


def test_slides_of_one_name_in_two_sub_folders_get_a_picture_each(tmp_path):
    stores = [make_store(tmp_path / "slides" / folder) for folder in ("x", "y")]
    for folder in ("x", "y"):
        (tmp_path / "labels").mkdir(exist_ok=True)
        write(tmp_path / "labels" / folder, "one", feature("Pink", polygon(square(0, 0))))
    labelling = label_slides(tmp_path / "labels", [store.path for store in stores], ["Pink"])
    table, *pictures = write_labels(labelling, tmp_path / "out")
    assert [row["slide"] for row in csv.DictReader(table.open())] == ["x/one", "y/one"]
    assert pictures == [tmp_path / "out" / folder / "one.png" for folder in ("x", "y")]


def test_labelled_tiles_are_tinted_and_the_others_stay(tmp_path):
    store = make_store(tmp_path)
    path = write(tmp_path / "labels", "one", feature("Pink", polygon(square(3, 1))))
    (slide,) = label_slides(path, [store.path], CLASSES).slides
    page = draw_labels(slide, CLASSES)
    middle = int(3.5 * TILE)
    assert (page[middle, int(4.5 * TILE)] == COLORS[1]).all()
    assert np.abs(page[middle, int(1.5 * TILE)].astype(int) - COLORS[0]).max() > 20


def test_each_class_tints_the_part_of_a_window_that_it_was_drawn_in(tmp_path):
    store = make_store(tmp_path)
    path = write(
        tmp_path / "labels", "one", feature("Pink", polygon(square(1, 3, 1, 0.25))),
        feature("Blue", polygon(square(1, 3.25, 1, 0.75))),
    )  # fmt: skip
    (slide,) = label_slides(path, [store.path], CLASSES).slides
    page = draw_labels(slide, CLASSES).astype(int)
    row, plain = int(1.5 * TILE), COLORS[1].astype(int)
    left, right = (page[row, int(col * TILE)] - plain for col in (3.1, 3.6))
    assert np.abs(left).max() > 20
    assert np.abs(right).max() > 20
    assert np.abs(left - right).max() > 20


def test_a_tissue_outline_that_was_edited_and_not_read_is_warned_of(tmp_path):
    """Nothing said that it was seen, nor where it counts."""
    store = make_store(tmp_path / "out" / "slides")
    outline = tmp_path / "out" / "tissue" / "one.geojson"
    write_mask(store, (0, 0), outline)
    (tmp_path / "labels").mkdir()
    call = ["label", str(tmp_path / "labels"), str(tmp_path / "out"), "-o", str(tmp_path / "seen")]
    warning = f"warning: {outline}: was edited, which changes nothing yet: run"
    assert warning not in CliRunner().invoke(app, call).stderr
    outline.write_text(json.dumps(collection(feature("Tissue", polygon(square(0, 0))))))
    assert CliRunner().invoke(app, call).stderr.count(warning) == 1
    learn = ["learn", *call[2:3], "--labels", call[1], "-o", str(tmp_path / "a.safetensors")]
    assert CliRunner().invoke(app, learn).stderr.count(warning) == 1
