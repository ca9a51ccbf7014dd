"""Corrections of a finished map, read against our own file."""

import json
import shutil

import numpy as np
import pytest

from wsiseg.annotations import Palette
from wsiseg.config import LabelConfig
from wsiseg.labels import keep_corrected, label_slides

from ..train.test_stores import annotate
from .slides import CLASSES, COLS, PALETTE, ROWS, TILE, make_store
from .test_forms import collection, feature, polygon, square

UNKNOWN = float("nan")


@pytest.fixture
def mapped(tmp_path):
    """An output folder: columns 0 and 1 pink, 3 and 4 blue, nothing between, and the ids."""
    store = make_store(tmp_path / "slides")
    labels = np.full((ROWS * TILE, COLS * TILE), 255, np.uint8)
    labels[:, : 2 * TILE], labels[:, 3 * TILE :] = 0, 1
    path = annotate(store, tmp_path / "geojson" / "one.geojson", labels)
    features = json.loads(path.read_text())["features"]
    return store, {f["properties"]["classification"]["name"]: f["id"] for f in features}


def write(tmp_path, *features):
    path = tmp_path / "corrections" / "one.geojson"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(collection(*features)))
    return path


def correct(tmp_path, mapped, *features, **settings):
    """The labelled tiles of a file of corrections, with their labels and weights."""
    path = write(tmp_path, *features)
    return weigh(label_slides(path.parent, [tmp_path], CLASSES, LabelConfig(**settings)))


def weigh(found):
    """Labels and weight by tile."""
    assert not found.problems, found.problems
    tiles = found.slides[0].found
    places = map(tuple, (tiles.corners // TILE).tolist())
    values = zip(tiles.labels.tolist(), tiles.weights.tolist(), strict=True)
    return {place: (*label, weight) for place, (label, weight) in zip(places, values, strict=True)}


def touched(state, name, shape, identity="00000000-0000-4000-8000-000000000001"):
    return {**feature(name, polygon(shape), metadata={"wsiseg": state}), "id": identity}


def columns(*cols):
    return {(row, col) for row in range(ROWS) for col in cols}


def test_a_reclassified_region_has_its_outline_from_our_file(tmp_path, mapped):
    _, ids = mapped
    lossy = square(0, 0)  # what QuPath may leave of a large outline
    found = correct(tmp_path, mapped, touched("reclassified", "Blue", lossy, ids["Pink"]))
    assert found.keys() == columns(0, 1)
    assert set(found.values()) == {(0, 1, 3)}
    light = correct(
        tmp_path, mapped, touched("reclassified", "Blue", lossy, ids["Pink"]), corrected_weight=1
    )
    assert set(light.values()) == {(0, 1, 1)}


def test_a_deleted_region_is_not_its_class_and_nobody_knows_what_else(tmp_path, mapped):
    _, ids = mapped
    found = correct(tmp_path, mapped, touched("deleted", "Pink", square(0, 0), ids["Pink"]))
    assert found.keys() == columns(0, 1)
    for pink, blue, weight in found.values():
        assert (pink, weight) == (0, 3)
        assert np.isnan(blue)


def test_what_was_checked_and_left_is_a_label_of_the_first_weight(tmp_path, mapped):
    _, ids = mapped
    checked = touched("checked", "Checked*", square(0, 1, 1, 3))
    found = correct(tmp_path, mapped, checked)
    assert found == {(0, 1): (1, 0, 1), (0, 2): (0, 0, 1), (0, 3): (0, 1, 1)}
    drawn = touched("drawn", "Blue", square(0, 1))
    found = correct(tmp_path, mapped, checked, drawn)
    assert found == {(0, 1): (0, 1, 3), (0, 2): (0, 0, 1), (0, 3): (0, 1, 1)}, "drawn over it"
    gone = touched("deleted", "Blue", square(0, 0), ids["Blue"])
    found = correct(tmp_path, mapped, checked, gone)
    assert found[0, 3] == (0, 0, 3)
    assert found[0, 1] == (1, 0, 1)


def test_a_checked_area_that_only_touches_a_region_does_not_hide_it(tmp_path, mapped):
    """Where both meet in an area and, elsewhere, in a line, the region was said to be absent."""
    checked = [
        touched("checked", "Checked*", square(0, 1)),
        touched("checked", "Checked*", square(2, 2)),
    ]
    found = correct(tmp_path, mapped, *checked)
    assert found == {(0, 1): (1, 0, 1), (2, 2): (0, 0, 1)}


def test_the_classes_of_a_map_count_if_none_are_given(tmp_path, mapped):
    """Else what was checked, and is of a class that nobody drew, was learned as anything but it."""
    _, ids = mapped
    path = write(tmp_path, touched("deleted", "Ignore*", square(0, 0), ids["Pink"]))
    found = label_slides(path.parent, [tmp_path])
    assert (found.classes, found.problems) == (("Pink",), ())
    assert set(weigh(found).values()) == {(0, 3)}
    checked = touched("checked", "Checked*", square(0, 0, 1, 5))
    write(tmp_path, checked)
    found = label_slides(path.parent, [tmp_path])
    assert (found.classes, found.problems) == (("Blue", "Pink"), ())
    assert [weigh(found)[0, col] for col in (0, 2, 4)] == [(0, 1, 1), (0, 0, 1), (1, 0, 1)]
    write(tmp_path, checked, touched("drawn", "Pink", square(2, 2)))
    both = label_slides(path.parent, [tmp_path])
    assert weigh(both) == weigh(found) | {(2, 2): (0, 1, 3)}
    only = label_slides(path.parent, [tmp_path], ("Pink",))
    assert only.problems == (), "a map may have classes that nobody wants"
    assert weigh(only)[0, 4] == (0, 1)


def test_names_in_a_map_are_no_typing_errors(tmp_path):
    store = make_store(tmp_path / "slides")
    names = Palette(("Adipose 1a", "Adipose 1b"), PALETTE.colors)
    annotate(store, tmp_path / "geojson" / "one.geojson", palette=names)
    checked = touched("checked", "Checked*", square(0, 0, 1, 5))
    path = write(tmp_path, checked)
    assert label_slides(path.parent, [tmp_path]).lookalikes == ()
    write(tmp_path, checked, touched("drawn", "adipose 1a", square(2, 2)))
    assert label_slides(path.parent, [tmp_path]).lookalikes == (("Adipose 1a", "adipose 1a"),)


def test_where_the_map_is_unsure_a_checked_area_says_nothing(tmp_path):
    """It said that no class was there."""
    store = make_store(tmp_path / "slides")
    labels = np.zeros((ROWS * TILE, COLS * TILE), np.uint8)
    labels[:, 2 * TILE :] = 2
    path = annotate(store, tmp_path / "geojson" / "one.geojson", labels, PALETTE.with_unsure())
    ids = {
        f["properties"]["classification"]["name"]: f["id"]
        for f in json.loads(path.read_text())["features"]
    }
    checked = touched("checked", "Checked*", square(0, 1, 1, 3))
    assert correct(tmp_path, None, checked) == {(0, 1): (1, 0, 1)}
    drawn = touched("drawn", "Blue", square(0, 3))
    assert correct(tmp_path, None, checked, drawn) == {(0, 1): (1, 0, 1), (0, 3): (0, 1, 3)}
    known = touched("reclassified", "Blue", square(0, 3), ids["Unsure"])
    assert correct(tmp_path, None, checked, known)[0, 2] == (0, 1, 3)
    path = write(tmp_path, checked, touched("deleted", "Ignore*", square(0, 3), ids["Unsure"]))
    found = label_slides(path.parent, [tmp_path])
    assert (found.classes, found.problems) == (("Pink",), ()), "to be unsure is no class"
    found = weigh(label_slides(path.parent, [tmp_path], CLASSES))
    assert found == {(0, 1): (1, 0, 1), (0, 2): (0, 0, 1), (0, 3): (0, 0, 1)}, "nor unsure"
    path = write(tmp_path, touched("checked", "Checked*", square(0, 3)))
    (problem,) = label_slides(path.parent, [tmp_path], CLASSES).problems
    assert "no tissue of one is annotated" in problem


def test_corrections_win_over_the_first_round(tmp_path, mapped):
    store, _ = mapped
    first = tmp_path / "first"
    first.mkdir()
    drawn = collection(
        feature("Pink", polygon(square(1, 0))), feature("Pink", polygon(square(1, 2)))
    )
    (first / "one.geojson").write_text(json.dumps(drawn))
    second = tmp_path / "corrections"
    second.mkdir()
    corrected = collection(touched("drawn", "Blue", square(1, 0)))
    (second / "one.geojson").write_text(json.dumps(corrected))
    found = label_slides([first, second], [store.path], CLASSES)
    (slide,) = found.slides
    assert slide.found.labels.tolist() == [[0, 1], [1, 0]]
    assert slide.found.weights.tolist() == [3, 1]


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (touched("painted", "Blue", square(0, 0)), "metadata.wsiseg is 'painted'; known are drawn"),
        ({**touched("deleted", "Blue", square(0, 0)), "id": None}, "but has no id"),
    ],
)
def test_what_does_not_fit_the_map_names_file_and_feature(tmp_path, mapped, one, message):
    path = tmp_path / "corrections" / "one.geojson"
    path.parent.mkdir()
    path.write_text(json.dumps(collection(one)))
    (problem, *_) = label_slides(path, [tmp_path], CLASSES).problems
    assert f"{path}: feature 0" in problem
    assert message in problem


def test_a_map_that_was_made_again_is_kept_for_its_corrections(tmp_path, mapped):
    store, ids = mapped
    checked = touched("checked", "Checked*", square(0, 3))
    both = [touched("reclassified", "Blue", square(0, 0), ids["Pink"]), checked]
    first = correct(tmp_path, mapped, *both)
    keep_corrected(tmp_path, "one")
    labels = np.zeros((ROWS * TILE, COLS * TILE), np.uint8)
    annotate(store, tmp_path / "geojson" / "one.geojson", labels)
    found = label_slides(tmp_path / "corrections", [tmp_path], CLASSES)
    assert not found.notes
    assert len(found.slides[0].found.labels) == len(first) == 2 * ROWS + 1
    keep_corrected(tmp_path, "one")  # the map that is there now was made after them
    assert (tmp_path / "geojson" / "one.geojson").exists()


# -- maps that were made again --------------------------------------------------------------------


def map_again(tmp_path, store, *columns_of, digest=""):
    """Make the map again, all of one class or with that of each column; return the ids."""
    keep_corrected(tmp_path, "one")
    labels = np.zeros((ROWS * TILE, COLS * TILE), np.uint8)
    labels[:] = np.repeat(columns_of, len(labels[0]) // len(columns_of))
    path = annotate(store, tmp_path / "geojson" / "one.geojson", labels, labels_digest=digest)
    features = json.loads(path.read_text())["features"]
    return {f["properties"]["classification"]["name"]: f["id"] for f in features}


def checked_on(digest, shape, identity):
    identity = f"00000000-0000-4000-8000-00000000000{identity}"
    return {
        **feature("Checked*", polygon(shape), metadata={"wsiseg": "checked", "map": digest}),
        "id": identity,
    }  # fmt: skip


@pytest.fixture
def maps(tmp_path):
    """Three maps of a slide, all pink, all blue and half each, each checked in one tile of its own.

    The ids of each; only the last is in its place.
    """
    store, ids, checked = make_store(tmp_path / "slides"), [], []
    for number, columns_of in enumerate([[0], [1], [1, 1, 1, 0, 0]]):
        ids.append(map_again(tmp_path, store, *columns_of, digest=f"{number}" * 64))
        checked.append(checked_on(f"{number}" * 64, square(number, 4), number))
        write(tmp_path, *checked)
    return ids, checked


def test_an_area_is_checked_on_the_map_that_was_there(tmp_path, maps):
    _, checked = maps
    found = correct(tmp_path, maps, *checked)
    assert found == {(0, 4): (1, 0, 1), (1, 4): (0, 1, 1), (2, 4): (1, 0, 1)}
    found = correct(tmp_path, maps, *reversed(checked))
    assert found == {(0, 4): (1, 0, 1), (1, 4): (0, 1, 1), (2, 4): (1, 0, 1)}


def test_regions_of_several_maps_are_corrected_beside_what_was_checked(tmp_path, maps):
    ids, checked = maps
    last = touched("reclassified", "Pink", square(3, 0), ids[2]["Blue"])
    gone = touched("deleted", "Ignore*", square(3, 0), ids[1]["Blue"])
    found = correct(tmp_path, maps, checked[0], last)
    assert found[0, 4] == (1, 0, 1), "of the first map"
    assert {found[row, col] for row, col in columns(0, 1, 2)} == {(1, 0, 3)}, "of the last"
    path = write(tmp_path, last, gone)
    labelled = label_slides(path.parent, [tmp_path], CLASSES)
    assert (labelled.problems, labelled.notes) == ((), ()), "each is in one of the maps"
    assert labelled.slides[0].layers.absent[1].area == ROWS * COLS * TILE**2


def test_what_was_checked_on_a_map_that_is_gone_is_a_problem(tmp_path, maps):
    _, checked = maps
    shutil.rmtree(tmp_path / "corrections" / ".maps")
    path = write(tmp_path, *checked)
    (problem,) = label_slides(path.parent, [tmp_path], CLASSES).problems
    assert problem.startswith(f"{path}: 1 checked area(s) are about a map that is not there")
    assert "(labels 00000000): delete them" in problem
    assert correct(tmp_path, maps, checked[2]) == {(2, 4): (1, 0, 1)}


def test_what_says_no_map_is_told_if_several_may_be_meant(tmp_path, maps):
    path = write(tmp_path, touched("checked", "Checked*", square(0, 0)))
    found = label_slides(path.parent, [tmp_path], CLASSES)
    (note,) = found.notes
    assert f"{path}: 1 checked area(s) do not say which of 3 maps was checked; " in note
    shutil.rmtree(tmp_path / "corrections" / ".maps")
    found = label_slides(path.parent, [tmp_path], CLASSES)
    assert found.notes == ()
    assert weigh(found) == {(0, 0): (0, 1, 1)}


def test_a_map_that_an_earlier_version_kept_is_found(tmp_path, maps):
    """It kept one, under the name of the slide."""
    _, checked = maps
    kept = tmp_path / "corrections" / ".maps"
    first = next(path for path in (kept / "one").iterdir() if "0" * 64 in path.read_text())
    first.rename(kept / "one.geojson")
    shutil.rmtree(kept / "one")
    assert correct(tmp_path, maps, checked[0]) == {(0, 4): (1, 0, 1)}


def test_corrections_of_another_run_find_its_map(tmp_path, mapped):
    _, ids = mapped
    other = make_store(tmp_path / "later" / "slides")
    path = tmp_path / "corrections" / "one.geojson"
    path.parent.mkdir()
    one = touched("reclassified", "Blue", square(0, 0), ids["Pink"])
    path.write_text(json.dumps(collection(one)))
    found = label_slides(path.parent, [other.path], CLASSES)
    assert len(found.slides[0].found.labels) == 2 * ROWS
    (tmp_path / "geojson" / "one.geojson").unlink()
    found = label_slides(path.parent, [other.path], CLASSES)
    assert found.slides[0].found.corners.tolist() == [[0, 0]], "as the file itself has it"
    assert "1 regions are no longer in any map" in found.notes[0]


def test_what_was_checked_needs_the_map(tmp_path, mapped):
    store, _ = mapped
    (tmp_path / "geojson" / "one.geojson").unlink()
    path = tmp_path / "one.geojson"
    path.write_text(json.dumps(touched("checked", "Checked*", square(0, 0))))
    (problem, *_) = label_slides(path, [store.path], CLASSES).problems
    assert "has checked areas, but the map is missing: one.geojson" in problem


def test_a_region_deleted_in_the_viewer_is_of_the_class_that_our_map_gave_it(tmp_path, mapped):
    _, ids = mapped
    gone = touched("deleted", "Ignore*", square(0, 0), ids["Pink"])
    found = correct(tmp_path, mapped, gone)
    assert found.keys() == columns(0, 1)
    assert {(pink, weight) for pink, _, weight in found.values()} == {(0, 3)}


def test_corrections_are_of_the_slide_that_has_their_name_in_the_run(tmp_path):
    """And not of another whose file has it; elsewhere it may be either's."""
    for slides in ("out/slides", "other/slides"):
        make_store(tmp_path / slides)
        make_store(tmp_path / slides, "one.svs")  # of a file one.svs.svs
    file = tmp_path / "out" / "corrections" / "one.svs.geojson"
    file.parent.mkdir()
    file.write_text(json.dumps(collection(feature("Pink", polygon(square(0, 0, 2))))))
    found = label_slides(file.parent, [tmp_path / "out"], CLASSES)
    assert (found.problems, found.unmatched) == ((), ())
    assert [slide.store.path.name for slide in found.slides] == ["one.svs.zarr"]
    found = label_slides(file.parent, [tmp_path / "other"], CLASSES)
    assert "'one.svs' is the name of" in found.unmatched[0]
