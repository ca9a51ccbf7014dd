import gzip
import json
import math
import zipfile
from pathlib import Path

import pytest

from tests.qupath.documents import collect, save
from wsiseg.errors import GeoJsonError
from wsiseg.qupath import Feature, Finding, describe_left_out, read_geojson

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "annotations"
RING = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
HOLE = [[2, 2], [2, 4], [4, 4], [4, 2], [2, 2]]
POLYGON = {"type": "Polygon", "coordinates": [RING, HOLE]}
FEATURE = {
    "type": "Feature",
    "geometry": POLYGON,
    "properties": {"name": "mine", "classification": {"name": "Tumor", "color": [1, 2, 3]}},
}


def read(tmp_path, document, name="a.geojson"):
    return read_geojson(save(tmp_path, document, name))


@pytest.mark.parametrize(
    "document",
    [{"type": "FeatureCollection", "features": [FEATURE]}, FEATURE, [FEATURE], POLYGON, [POLYGON]],
)
def test_every_accepted_form(tmp_path, document):
    (feature,) = read(tmp_path, document)
    assert isinstance(feature, Feature)
    assert feature.geometry.area == 96
    if "Feature" in json.dumps(document):
        assert (feature.name, feature.class_name) == ("mine", "Tumor")
        assert feature.properties == FEATURE["properties"]
    else:
        assert (feature.name, feature.class_name, feature.properties) == (None, None, {})


def test_packed_files(tmp_path):
    data = json.dumps(FEATURE).encode()
    assert len(read(tmp_path, gzip.compress(data), "a.geojson.gz")) == 1
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("one.geojson", data)
        archive.writestr("two.json", data)
    assert len(read_geojson(tmp_path / "a.zip")) == 2


@pytest.mark.parametrize(
    ("classification", "expected"),
    [("Tumor", "Tumor"), ({"names": ["Tumor", "Positive"]}, "Tumor: Positive"), (None, None),
     ({}, None), ({"name": "Tumor"}, "Tumor"), ({"name": None}, None), ({"name": " "}, None),
     ({"names": [None]}, None), ({"name": None, "names": ["Tumor", None]}, "Tumor"),
     ({"names": None}, None), ({"name": 5}, "5")],
)  # fmt: skip
def test_class_names(tmp_path, classification, expected):
    document = {**FEATURE, "properties": {"classification": classification}}
    assert read(tmp_path, document)[0].class_name == expected


def test_what_qupath_writes_of_its_own_is_read(tmp_path):
    """A measurement that is NaN, children below their parent, a cell, a point."""
    child = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}}
    document = {**FEATURE, "properties": {"measurements": {"a": float("nan")},
                                          "childObjects": [child]}}  # fmt: skip
    kinds = [feature.geometry.geom_type for feature in read(tmp_path, document)]
    assert kinds == ["Polygon", "Point"]


def test_shapes_come_in_file_order(tmp_path):
    other = {"type": "MultiPolygon", "coordinates": [[[[x + 20, y] for x, y in RING]], [RING]]}
    point = {"type": "Point", "coordinates": [1, 2]}
    shapes = [f.geometry for f in read(tmp_path, [other, POLYGON, point, POLYGON])]
    assert [shape.geom_type for shape in shapes] == ["MultiPolygon", "Polygon", "Point", "Polygon"]
    assert [shape.area for shape in shapes] == [200, 96, 0, 96]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"{", r"a\.geojson: error: is not JSON"),
        (b"\xff\xfe", r"not UTF-8"),
        ({"type": "Topology"}, r"has the type 'Topology'"),
        ({"type": "FeatureCollection"}, r'a list is needed \[collection-features\]'),
        ({**FEATURE, "geometry": None}, r'feature 0: "geometry" is missing or null'),
        ([POLYGON, {"type": "GeometryCollection", "geometries": []}], r"feature 1: .*Collection"),
        ({"type": "Polygon", "coordinates": [RING[:-1]]}, r"not exactly its first \[ring-open\]"),
        (
            {"type": "Polygon", "coordinates": [[[math.nan, 0], *RING[1:-1], [math.nan, 0]]]},
            r"a coordinate is not a number, .* \[coordinates\]",
        ),
        (
            {"type": "Polygon", "coordinates": [[[0, 0], [4, 4], [4, 0], [0, 8], [0, 0]]]},
            r"crosses itself .*\[ring-crossing\]; see `wsiseg lint`, and `wsiseg lint --fix`",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(tmp_path, document, message):
    with pytest.raises(GeoJsonError, match=message):
        read(tmp_path, document)


CROSSING = {"type": "Polygon", "coordinates": [[[0, 0], [4, 4], [4, 0], [0, 8], [0, 0]]]}
BROKEN = {
    "crossing": ({**FEATURE, "geometry": CROSSING}, "feature 1: its outline crosses itself"),
    "null": ({**FEATURE, "geometry": None}, 'feature 1: "geometry" is missing or null'),
    "missing": ({"type": "Feature"}, 'feature 1: "geometry" is missing or null'),
    "no type": ({**FEATURE, "geometry": {}}, "feature 1: has the geometry type None"),
    "open": ({**FEATURE, "geometry": {"type": "Polygon", "coordinates": [RING[:-1]]}},
             "feature 1: a ring's last point is not exactly its first"),
    "text": ({**FEATURE, "id": "mine", "geometry": {"type": "Point", "coordinates": ["a", "b"]}},
             "feature 1 (mine): its coordinates are malformed"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_feature_does_not_cost_the_others(tmp_path, kind):
    bad, message = BROKEN[kind]
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(collect(FEATURE, bad, FEATURE)))
    with pytest.raises(GeoJsonError, match="feature 1"):
        read_geojson(path)
    left_out = []
    assert len(read_geojson(path, left_out)) == 2
    assert message in describe_left_out(left_out)
    assert describe_left_out(left_out).startswith("1 feature(s) left out (")
    assert describe_left_out(left_out).endswith("; `wsiseg lint --fix` repairs what it can")


def test_an_element_that_is_no_feature_does_not_cost_the_others(tmp_path):
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(collect(None, FEATURE, "text")))
    left_out = []
    assert len(read_geojson(path, left_out)) == 1
    assert [finding.rule for finding in left_out] == ["feature-type"] * 2


def test_only_some_of_many_broken_features_are_named():
    told = describe_left_out([Finding("geometry", "it is null", n) for n in range(400)])
    assert told.startswith("400 feature(s) left out (feature 0: it is null; feature 1:")
    assert "; and 390 more)" in told
    assert describe_left_out([]) == ""


def test_what_qupath_writes_without_a_shape_is_passed_over(tmp_path):
    """The root of the hierarchy, and a rectangle of width 0 as 0.5.1 exports it."""
    root = {"type": "Feature", "geometry": {}, "properties": {"objectType": "root"}}
    empty = {**FEATURE, "geometry": {"type": "Polygon", "coordinates": [[]]}}
    left_out = []
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(collect(root, FEATURE, empty)))
    assert len(read_geojson(path)) == len(read_geojson(path, left_out)) == 1
    assert left_out == []


@pytest.mark.parametrize(
    ("name", "ignored"),
    [("Ignore*", True), ("Ignore*: Fold", True), ("Region*", False), ("Tumor", False),
     ("Ignore", True), ("ignore folds*", True), ("Ignored_2", True), ("Ignorella", False),
     ("Tumor: Ignore", False), (None, False)],
)  # fmt: skip
def test_only_ignore_is_ignored(tmp_path, name, ignored):
    document = {**FEATURE, "properties": {"classification": name}}
    assert read(tmp_path, document)[0].is_ignored is ignored


def test_a_missing_file_and_a_broken_archive(tmp_path):
    with pytest.raises(GeoJsonError, match=r"gone\.geojson: cannot be read"):
        read_geojson(tmp_path / "gone.geojson")
    with pytest.raises(GeoJsonError, match=r"cannot be decompressed"):
        read(tmp_path, b"no", "a.geojson.gz")


@pytest.mark.skipif(not DATA.is_dir(), reason="shared/data is not beside the checkout")
@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("dlup_qupath05.geojson", [None, None, None]),
        ("histoqc_holed.geojson", [None]),
        ("histoqc_geojson_example.json", ["Tumor", "Invborder"]),
    ],
)
def test_files_of_others(name, classes):
    features = read_geojson(DATA / name)
    assert [feature.class_name for feature in features] == classes
    assert all(feature.geometry.area > 0 for feature in features)
