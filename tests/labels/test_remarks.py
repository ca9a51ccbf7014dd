"""What is said of labels that teach nothing, or contradict each other."""

import json

import numpy as np

from wsiseg.config import LabelConfig
from wsiseg.labels import label_slides

from .slides import CLASSES, COLS, ROWS, make_store
from .test_forms import BLUE, PINK, collection, feature, polygon, square, tiles_of


def test_a_class_drawn_on_glass_alone_is_told(tmp_path):
    tissue = np.ones((ROWS, COLS), bool)
    tissue[:, 4] = False
    store = make_store(tmp_path, tissue=tissue)
    path = tmp_path / "one.geojson"
    path.write_text(json.dumps(collection(PINK, BLUE)))
    found = label_slides(path, [store.path], CLASSES)
    assert tiles_of(found) == {(1, 0): (1, 0)}
    (note,) = found.notes
    assert "one: Blue was drawn, but no window shows it" in note
    assert "tissue/one.geojson" in note


def test_an_area_on_glass_of_a_class_that_is_shown_elsewhere_is_told(tmp_path):
    tissue = np.ones((ROWS, COLS), bool)
    tissue[:, 2:] = False
    store = make_store(tmp_path, tissue=tissue)
    path = tmp_path / "one.geojson"
    lost = feature("Pink", polygon(square(1, 4)))
    path.write_text(json.dumps(collection(PINK, lost)))
    found = label_slides(path, [store.path], CLASSES)
    assert tiles_of(found) == {(1, 0): (1, 0)}
    assert found.notes == (
        f"{path}: feature 1 lies where no tissue was found, and teaches nothing",
    )


def test_an_area_that_two_files_give_two_classes_is_told(tmp_path):
    store, paths = make_store(tmp_path), [tmp_path / name for name in ("a", "b")]
    nested, twice = feature("Blue", polygon(square(0, 0))), feature("Pink", polygon(square(2, 3)))
    drawn = [collection(PINK, nested, twice), collection(feature("Blue", polygon(square(2, 3))))]
    for folder, collected in zip(paths, drawn, strict=True):
        folder.mkdir()
        (folder / "one.geojson").write_text(json.dumps(collected))
    found = label_slides(paths, [store.path], CLASSES)
    one, two = (folder / "one.geojson" for folder in paths)
    assert found.notes == (
        f"{two}: feature 0 covers what {one}: feature 2 gives another class: both are learned, "
        "so delete one",
    )
    alike = LabelConfig(map={"Pink": "Blue"})
    assert label_slides(paths, [store.path], ("Blue",), alike).notes == ()
