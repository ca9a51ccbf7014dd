import json

import numpy as np
import pytest
import shapely

from tests.export.stores import outline
from wsiseg.errors import GeoJsonError
from wsiseg.qupath import read_geojson, write_geojson
from wsiseg.store import SlideStore
from wsiseg.view.regions import _Builder, outlined_regions, read_regions


@pytest.fixture(scope="module")
def path(run):
    return run / "geojson/one.geojson"


@pytest.fixture(scope="module")
def regions(path):
    return read_regions([path])


@pytest.fixture(scope="module")
def features(path):
    return read_geojson(path)


def test_regions_are_those_of_the_file(regions, features):
    assert len(regions) == len(features)
    for index, feature in enumerate(features):
        region = regions[index]
        assert region.class_name == feature.class_name
        assert region.area_mm2 == feature.properties["measurements"]["Area mm^2"]
        assert region.box == feature.geometry.bounds
        assert regions.geometry(index).equals(feature.geometry)
        assert regions.find(region.id) == region
    assert regions.find("no such") is None


def test_a_point_is_in_the_region_whose_polygon_holds_it(regions, features):
    rng = np.random.default_rng(0)
    hits = 0
    for x, y in rng.uniform(0, 1700, (300, 2)):
        found = regions.at(x, y)
        point = shapely.Point(x, y)
        holders = [i for i, one in enumerate(features) if one.geometry.contains(point)]
        assert ([found.index] if found else []) == holders
        hits += len(holders)
    assert hits > 20


def seen_lines(regions, box, tolerance):
    """Region and points of each line in a box."""
    found = regions.outlines(box, tolerance, 10**6)
    points = np.split(found.points, np.cumsum(found.lengths))[:-1]
    return list(zip(found.owners.tolist(), points, strict=True))


def test_a_view_gets_every_border_in_it_and_little_else(regions, features):
    box = (300.0, 300.0, 900.0, 800.0)
    lines = seen_lines(regions, box, 0)
    drawn = shapely.unary_union([shapely.LineString(line) for _, line in lines])
    borders = shapely.unary_union([one.geometry.boundary for one in features])
    view = shapely.box(*box)
    wanted = borders.intersection(view)
    assert drawn.intersection(view).length == pytest.approx(wanted.length, rel=1e-6)
    assert 0 < len({owner for owner, _ in lines}) < len(regions)
    for owner, line in lines:
        near = features[owner].geometry.boundary.buffer(0.01)
        assert near.contains(shapely.LineString(line))


def test_beyond_the_budget_nothing_is_sampled_away_but_refused(regions):
    assert regions.outlines((0, 0, 2000, 2000), 0, 100) is None
    few, all_ = (seen_lines(regions, (0, 0, 2000, 2000), pixels) for pixels in (25, 0))
    assert sum(len(line) for _, line in few) < 0.7 * sum(len(line) for _, line in all_)
    assert {owner for owner, _ in few} == {owner for owner, _ in all_} == set(range(len(regions)))


def test_ranks_are_by_size_or_by_least_confidence(regions):
    order = regions.ranked("size", regions.class_names)
    areas = [regions[i].area_mm2 for i in order]
    assert areas == sorted(areas, reverse=True)
    assert len(order) == len(regions)
    sure = regions.ranked("confidence", ["Tumor"])
    assert {regions[i].class_name for i in sure} == {"Tumor"}
    large = [regions[i].confidence for i in sure if regions[i].area_mm2 >= 0.001]
    assert large == sorted(large)


def test_outlined_anew_they_have_the_ids_and_places_of_the_file(run, regions):
    again = outlined_regions(outline(SlideStore(run / "slides/one.zarr")))
    assert again.ids == regions.ids
    for index in range(len(regions)):
        assert again[index].box == regions[index].box
        assert again[index].confidence == pytest.approx(regions[index].confidence, abs=1e-4)


def test_parts_packed_and_foreign_files_are_read(tmp_path, run):
    annotations = outline(SlideStore(run / "slides/one.zarr"))
    packed = write_geojson(annotations, tmp_path / "a.geojson.gz")
    foreign = tmp_path / "b.geojson"
    foreign.write_text(
        '[{"type": "Feature", "geometry": {"type": "MultiPolygon", "coordinates": '
        "[[[[0,0],[10,0],[10,10],[0,10],[0,0]]],[[[20,0],[30,0],[30,10],[20,0]]]]},"
        '"properties": {"classification": {"name": "Other"}}}]'
    )
    both = read_regions([packed, foreign])
    assert len(both) == len(annotations.regions) + 1
    other = both[len(both) - 1]
    assert (other.class_name, other.confidence) == ("Other", None)
    assert both.geometry(other.index).area == pytest.approx(150)


def test_what_is_no_geojson_is_named(tmp_path):
    bad = tmp_path / "bad.geojson"
    bad.write_text('{"type":"FeatureCollection","features":[\n{"type":"Feature","id":1}\n]}\n')
    with pytest.raises(GeoJsonError, match=r"bad\.geojson"):
        read_regions([bad])
    bad.write_text("{" * 10_000)
    with pytest.raises(GeoJsonError, match=r"bad\.geojson"):
        read_regions([bad])


CRAFTED = {
    "huge": {"coordinates": [[[0, 0], [1e300, 0], [9, 9], [0, 0]]]},
    "one point": {"coordinates": [[[0, 0]]]},
    "no ring": {"coordinates": []},
    "no numbers": {"coordinates": [[["a", "b"], [1, 2], [3, 4], ["a", "b"]]]},
    "deep": {"coordinates": "DEEP"},
    "html": {"id": "<img src=x>", "classification": {"name": "<b>x</b>"}},
    "object as id": {"id": {"a": 1}},
    "area as text": {"measurements": {"Area mm^2": "<b>", "Mean confidence": [1]}},
}


@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_file_is_refused_or_shown_as_text(name, tmp_path):
    given = CRAFTED[name]
    square = [[[0, 0], [9, 0], [9, 9], [0, 0]]]
    feature = {
        "type": "Feature", "id": given.get("id", "a"),
        "geometry": {"type": "Polygon", "coordinates": given.get("coordinates", square)},
        "properties": {
            "objectType": "annotation",
            "classification": given.get("classification", {"name": "Tumor"}),
            "measurements": given.get("measurements", {}),
        },
    }  # fmt: skip
    line = json.dumps(feature, separators=(",", ":")).replace('"DEEP"', "[" * 10**5 + "]" * 10**5)
    path = tmp_path / "a.geojson"
    path.write_text('{"type":"FeatureCollection","features":[\n' + line + "\n]}\n")
    if "coordinates" in given:
        with pytest.raises(GeoJsonError, match=r"a\.geojson"):
            read_regions([path])
        return
    regions = read_regions([path])
    assert isinstance(regions[0].id, str)
    assert regions[0].class_name == feature["properties"]["classification"]["name"]
    assert regions.at(8, 4).index == 0
    assert len(seen_lines(regions, (0, 0, 9, 9), 1)) == 1


def test_no_regions_are_no_error(tmp_path):
    empty = tmp_path / "e.geojson"
    empty.write_text('{"type":"FeatureCollection","features":[\n\n]}\n')
    regions = read_regions([empty])
    assert len(regions) == 0
    assert regions.at(1, 1) is None
    assert seen_lines(regions, (0, 0, 9, 9), 1) == []


def test_our_files_are_scanned_and_give_what_plain_reading_gives(path):
    scanned, plain = _Builder(), _Builder()
    text = path.read_bytes()
    scanned.scan(text)  # raises if the file is not as it expects
    plain.add(json.loads(text)["features"], path)
    fast, slow = scanned.build(), plain.build()
    assert fast.ids == slow.ids
    assert [fast[i] for i in range(len(fast))] == [slow[i] for i in range(len(slow))]
    assert (fast._points == slow._points).all()
    assert (fast._rings == slow._rings).all()
