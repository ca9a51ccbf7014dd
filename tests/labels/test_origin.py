"""Files that say where their (0, 0) lies on the slide, beside those that do not."""

import json

import numpy as np
import pytest
import shapely

from tests.labels.slides import BOUNDS, CLASSES, TILE, make_store
from tests.labels.test_corrections import columns, mapped, touched
from tests.labels.test_forms import collection, feature, polygon, square
from tests.qupath.read.test_restore import WHOLE, without
from tests.qupath.regions import make_region
from wsiseg.annotations import PALETTES, Annotations
from wsiseg.config import LabelConfig
from wsiseg.labels import label_slides
from wsiseg.labels.geojson import read_geojson_marks
from wsiseg.qupath import write_geojson

__all__ = ["mapped"]  # a fixture

ORIGINS = [BOUNDS, (0, 0), (-12.5, 7)]
"""QuPath's, which is what `square` and `mapped` are in, that of level 0, and any other."""


def write(path, origin, *features):
    """A file that says its origin, of features in QuPath's pixels; without one, as they are."""
    tree = collection(*features)
    if origin is not None:
        tree["wsiseg"] = {"origin": list(origin)}
        for one in tree["features"]:
            shape = shapely.geometry.shape(one["geometry"])
            by = np.subtract(BOUNDS, origin)
            moved = shapely.transform(shape, lambda points, by=by: points + by)
            one["geometry"] = json.loads(shapely.to_geojson(moved))
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(tree))
    return path


def label(path, *stores, **settings):
    """The labelled tiles of a file, with their labels."""
    found = label_slides(path, stores, CLASSES, LabelConfig(**settings))
    assert not found.problems, found.problems
    tiles = found.slides[0].found
    places = map(tuple, (tiles.corners / TILE).tolist())
    return dict(zip(places, map(tuple, tiles.labels.tolist()), strict=True))


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("setting", ["qupath", "level0"])
def test_a_file_is_read_by_the_origin_that_it_says(tmp_path, origin, setting):
    store = make_store(tmp_path)
    path = write(tmp_path / "one.geojson", origin, feature("Pink", polygon(square(1, 2))))
    assert label(path, store.path, origin=setting) == {(1, 2): (1, 0)}


def test_one_that_says_none_is_read_by_the_setting(tmp_path):
    store = make_store(tmp_path)
    area = feature("Pink", polygon(square(1, 2)))
    plain = write(tmp_path / "one.geojson", None, area)
    assert label(plain, store.path) == {(1, 2): (1, 0)}
    shifted = label(plain, store.path, origin="level0")
    said = write(tmp_path / "one.geojson", BOUNDS, area)
    tree = json.loads(said.read_text())
    tree["wsiseg"]["origin"] = [0, 0]
    said.write_text(json.dumps(tree))
    assert label(said, store.path) == shifted != {(1, 2): (1, 0)}


@pytest.mark.parametrize("origin", [*ORIGINS, None])
@pytest.mark.parametrize("setting", ["qupath", "level0"])
def test_corrections_and_their_map_may_have_two_origins(tmp_path, mapped, origin, setting):
    """The map is in QuPath's pixels."""
    _, ids = mapped
    if origin is None and setting == "level0":
        origin = (0, 0)
    changed = touched("reclassified", "Blue", square(0, 0), ids["Pink"])
    checked = touched("checked", "Checked*", square(1, 2, 1, 2))
    path = write(tmp_path / "corrections" / "one.geojson", origin, changed, checked)
    found = label(path, tmp_path, origin=setting)
    assert found.keys() == columns(0, 1) | {(1, 2), (1, 3)}
    assert {found[place] for place in columns(0, 1)} == {(0, 1)}
    assert (found[1, 2], found[1, 3]) == ((0, 0), (0, 1)), "what lies there in the map"


@pytest.mark.parametrize("origin", [[0], [0, 1, 2], ["0", 0], [True, 0], {"x": 0}, 3, [0, 1e300]])
def test_an_origin_that_is_none_is_told(tmp_path, mapped, origin):
    path = write(
        tmp_path / "corrections" / "one.geojson", None, feature("Pink", polygon(square(0, 0)))
    )
    tree = json.loads(path.read_text())
    path.write_text(json.dumps({**tree, "wsiseg": {"origin": origin}}))
    (problem, *_) = label_slides(path, [tmp_path], CLASSES).problems
    assert problem.startswith(f"{path}: says that its origin is {origin}; it needs to be two num")


def test_so_is_one_of_the_map(tmp_path, mapped):
    own = tmp_path / "geojson" / "one.geojson"
    own.write_text(own.read_text().replace('"origin":[100,40]', '"origin":[100]'))
    _, ids = mapped
    one = touched("reclassified", "Blue", square(0, 0), ids["Pink"])
    path = write(tmp_path / "corrections" / "one.geojson", None, one)
    (problem, *_) = label_slides(path, [tmp_path], CLASSES).problems
    assert problem.startswith(f"{own}: says that its origin is [100]")


@pytest.mark.parametrize("origin", [*ORIGINS, None])
def test_an_outline_in_part_is_restored_in_the_file_s_own_pixels(tmp_path, origin):
    region = make_region(shapely.get_coordinates(WHOLE))
    own = write_geojson(
        Annotations("a", PALETTES["bcss"], (region,), (1, 1), 0.25, origin=BOUNDS),
        tmp_path / "own.geojson",
    )
    (one,) = json.loads(own.read_text())["features"]
    shape = shapely.transform(without(1, 3), lambda points: points - np.array(BOUNDS))
    part = {**one, "geometry": json.loads(shapely.to_geojson(shape))}
    drawn = read_geojson_marks(write(tmp_path / "a.geojson", origin, part), [own])
    place = BOUNDS if origin is None else origin
    (mark,) = drawn.marks
    assert "1 outline(s) that QuPath exported in part" in drawn.notes[0]
    assert shapely.transform(mark.geometry, lambda points: points + np.array(place)).equals(WHOLE)
