import gzip
import json
import zipfile

import geojson
import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.qupath.regions import HOLE, SQUARE, annotate, make_region, regions_of
from tests.qupath.write.test_geojson import LABELS, SCALES
from wsiseg.annotations import PALETTES, Annotations, Palette
from wsiseg.errors import GeoJsonError
from wsiseg.qupath import (
    from_feature_collection,
    lint_geojson,
    read_annotations,
    to_feature_collection,
    write_geojson,
)

RING = [[0, 0], [100, 0], [100, 100], [0, 100], [0, 0]]
BOX = {"type": "Polygon", "coordinates": [RING]}


def read(tmp_path, document, **others):
    path = tmp_path / "case.geojson"
    path.write_text(json.dumps(document))
    return read_annotations(path, **others)


def object_of(geometry=BOX, **properties):
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def same(a: Annotations, b: Annotations) -> bool:
    """Whether these are the same regions, to the 4 decimals of a confidence."""
    one, two = (
        [
            (r.label, r.area_px, round(r.confidence, 4), r.exterior.tolist(),
             [hole.tolist() for hole in r.holes])
            for r in annotations.regions
        ]
        for annotations in (a, b)
    )  # fmt: skip
    return one == two and (a.slide, a.scale, a.origin, a.mpp, a.locked, a.provenance) == (
        b.slide, b.scale, b.origin, b.mpp, b.locked, b.provenance
    )  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(LABELS, SCALES, SCALES, st.tuples(st.integers(-9, 9), st.integers(0, 9)), st.booleans(),
       st.sampled_from([0.25, 0.5, 0.4991, 1.0]))  # fmt: skip
def test_ours_come_back_as_they_were(tmp_path_factory, labels, sx, sy, origin, locked, mpp):
    folder = tmp_path_factory.mktemp("any")
    before = Annotations("case.svs", PALETTES["bcss"], tuple(regions_of(labels)), (sx, sy), mpp,
                         origin, {"labels": "abc", "outline": "{}"}, locked)  # fmt: skip
    path = write_geojson(before, folder / "a.geojson")
    after = read_annotations(path, palette=PALETTES["bcss"])
    if before.regions:
        assert same(after, before)
    own = read_annotations(path)  # the file's own classes
    for again in (after, own) if before.regions else ():
        assert write_geojson(again, folder / "b.geojson").read_bytes() == path.read_bytes()


NAMES = st.sampled_from(["Tumor", "Stroma", "Mine, too", "Tumor: Positive", "Ignore*"])
COLORS = st.sampled_from([[200, 0, 0], [1, 2, 3], None])
CLASSES = st.one_of(
    st.none(), NAMES, st.just({}),
    st.builds(lambda n, c: {"name": n, "color": c}, NAMES, COLORS),
    st.builds(lambda c: {"names": ["Tumor", "Positive"], "color": c}, COLORS),
    st.builds(lambda n: {"name": n, "colorRGB": -3670016}, NAMES),
)  # fmt: skip
COORDINATES = st.integers(-50, 500) | st.floats(-50, 500).map(lambda v: round(v, 2))
RINGS = st.builds(
    lambda x, y, w, h: [[x, y], [x + w, y], [x + w, y + h], [x, y + h], [x, y]],
    COORDINATES, COORDINATES, st.integers(1, 90), st.integers(1, 90),
)  # fmt: skip
ELLIPSES = st.builds(  # QuPath writes an ellipse as a polygon of many decimals
    lambda x, y, r: shapely.get_coordinates(shapely.Point(x, y).buffer(r)).tolist(),
    COORDINATES, COORDINATES, st.integers(2, 60),
)  # fmt: skip
PARTS = st.builds(
    lambda ring, gap: [[ring], [[[x + 100 + gap, y] for x, y in ring]]], RINGS, st.integers(0, 9)
)
GEOMETRIES = st.one_of(
    st.builds(lambda ring: {"type": "Polygon", "coordinates": [ring]}, RINGS | ELLIPSES),
    st.builds(lambda parts: {"type": "MultiPolygon", "coordinates": parts}, PARTS),
    st.just({"type": "Point", "coordinates": [3, 4]}),
    st.just({"type": "LineString", "coordinates": [[3, 4], [5, 6]]}),
)
PLANES = st.sampled_from([{}, {"plane": {"c": -1, "z": 0, "t": 0}}])
MEASURED = st.sampled_from([
    {}, {"measurements": {"a": 1.5, "Mean confidence": 0.5}},
    {"measurements": [{"name": "Mean confidence", "value": 0.25}, {"name": "b", "value": 2}]},
])  # fmt: skip
OBJECTS = st.builds(
    lambda geometry, plane, value, measured, locked: object_of(
        geometry | plane, classification=value, isLocked=locked, objectType="annotation", **measured
    ),
    GEOMETRIES, PLANES, CLASSES, MEASURED, st.booleans(),
)  # fmt: skip
FORMS = st.sampled_from([
    lambda objects: {"type": "FeatureCollection", "features": objects},
    lambda objects: objects,
    lambda objects: objects[0],
    lambda objects: objects[0]["geometry"],
    lambda objects: [one["geometry"] for one in objects],
])  # fmt: skip
PACKERS = st.sampled_from([".geojson", ".json", ".geojson.gz", ".zip"])


def pack(path, document):
    data = json.dumps(document).encode()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("objects.geojson", data)
    else:
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@settings(max_examples=150, deadline=None)
@given(st.lists(OBJECTS, min_size=1, max_size=5), FORMS, PACKERS)
def test_whatever_qupath_writes_is_a_fixed_point_once_written(
    tmp_path_factory, objects, form, suffix
):
    folder = tmp_path_factory.mktemp("any")
    source = folder / f"case{suffix}"
    document = form(objects)
    pack(source, document)
    first = read_annotations(source, mpp=0.25)
    one = write_geojson(first, folder / "one.geojson")
    assert {finding.rule for finding in lint_geojson(one)} <= {"class-derived"}
    second = read_annotations(one)
    assert same(second, first) or not first.regions or _has_nan(first)
    assert write_geojson(second, folder / "two.geojson").read_bytes() == one.read_bytes()
    given_area = sum(
        shapely.from_geojson(json.dumps(geometry)).area for geometry in _geometries(document)
    )
    drawn = sum(first.area_um2(region) for region in first.regions) / 0.25**2
    assert drawn == pytest.approx(given_area, abs=5 * len(first.regions))  # 0.005 px a border


def _geometries(document):
    if isinstance(document, list):
        return [one for member in document for one in _geometries(member)]
    if "features" in document:
        return _geometries(document["features"])
    return [document.get("geometry", document)]


def _has_nan(annotations):
    return any(np.isnan(region.confidence) for region in annotations.regions)


def test_classes_and_colours(tmp_path):
    given = [
        {"name": "Mine", "color": [1, 2, 3]}, "Stroma", None, {"name": "Mine", "color": [9, 9, 9]},
        {"name": "Old", "colorRGB": -3670016}, {"names": ["Tumor", "Positive"], "color": None},
    ]  # fmt: skip
    annotations = read(tmp_path, [object_of(classification=value) for value in given], mpp=0.5)
    assert annotations.palette == Palette(
        ("Mine", "Stroma", "Unclassified", "Old", "Tumor: Positive"),
        ((1, 2, 3), (150, 200, 150), (64, 64, 64), (200, 0, 0), (64, 64, 64)),
    )
    assert [region.label for region in annotations.regions] == [0, 1, 2, 0, 3, 4]


def test_what_others_write_without_names_is_read(tmp_path):
    one = object_of(
        classification={"name": None, "color": [None, 2, 3]},
        measurements=[{"name": None, "value": 1.0}, {"value": 2.0}],
    )
    found = read(tmp_path, {"type": "FeatureCollection", "features": [one]}, mpp=0.5)
    assert found.palette == Palette(("Unclassified",), ((64, 64, 64),))
    assert len(found.regions) == 1


def test_a_palette_settles_the_labels(tmp_path):
    document = [object_of(classification="Necrosis"), object_of(classification="Tumor")]
    annotations = read(tmp_path, document, mpp=0.5, palette=PALETTES["bcss"], slide="mine.svs")
    assert [region.label for region in annotations.regions] == [3, 0]
    assert annotations.slide == "mine.svs"
    with pytest.raises(
        GeoJsonError, match=r"case\.geojson: holds the class 'Mine', which is not one"
    ):
        read(tmp_path, object_of(classification="Mine"), mpp=0.5, palette=PALETTES["bcss"])


def test_whole_pixels_stay_whole(tmp_path):
    assert read(tmp_path, BOX, mpp=0.5).scale == (1.0, 1.0)
    annotations = read(tmp_path, {"type": "Polygon", "coordinates": [np.add(RING, 0.5).tolist()]},
                       mpp=0.5)  # fmt: skip
    assert annotations.scale == (0.01, 0.01)
    (region,) = annotations.regions
    assert annotations.area_um2(region) == pytest.approx(2500)
    assert region.exterior[0].tolist() == [50, 50]


def test_points_and_lines_are_left_out_and_told(tmp_path):
    point = {"type": "Point", "coordinates": [1, 2]}
    annotations = read(tmp_path, [point, BOX, point], mpp=0.5)
    assert len(annotations.regions) == 1
    assert annotations.provenance == {"left_out": "2 points and lines"}


def test_a_vertex_that_was_moved_is_kept(tmp_path):
    """A file of ours, edited: its corners lie on no raster any more."""
    path = write_geojson(annotate([make_region(holes=[HOLE])], scale=(4.0, 4.0), origin=(3, 5)),
                         tmp_path / "a.geojson")  # fmt: skip
    path.write_text(path.read_text().replace("[37,-5]", "[38.5,-5]"))
    annotations = read_annotations(path)
    assert annotations.scale == (0.01, 0.01)
    assert annotations.mpp == pytest.approx(0.5 / 4 / 100)
    again = write_geojson(annotations, tmp_path / "b.geojson")
    assert "[38.5,-5]" in again.read_text()


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(GeoJsonError, match=r"case\.geojson: has no pixel size; give mpp"):
        read(tmp_path, BOX)
    far = {"type": "Polygon", "coordinates": [np.add(RING, 3e7).tolist()]}
    with pytest.raises(GeoJsonError, match=r"holds a coordinate beyond 21,474,836 px"):
        read(tmp_path, far, mpp=0.5)


def test_detections_are_written_again_as_such(tmp_path):
    path = write_geojson(annotate([make_region(SQUARE)]), tmp_path / "a.geojson", "detection")
    again = write_geojson(read_annotations(path), tmp_path / "b.geojson", "detection")
    assert again.read_bytes() == path.read_bytes()


def test_a_broken_feature_is_told_and_costs_no_other(tmp_path, caplog):
    crossing = {"type": "Polygon", "coordinates": [[[0, 0], [4, 4], [4, 0], [0, 8], [0, 0]]]}
    annotations = read(tmp_path, [BOX, crossing], mpp=0.25)
    assert len(annotations.regions) == 1
    assert "feature 1: its outline crosses itself" in annotations.provenance["broken"]
    assert "case.geojson: 1 feature(s) left out (feature 1" in caplog.text


def test_what_is_no_number_is_no_measurement(tmp_path):
    """QuPath writes NaN as text or bare; the colours of others may be anything."""
    given = object_of(
        measurements={"Area mm^2": float("nan"), "Mean confidence": "NaN"},
        classification={"name": "Mine", "color": [None, "a", 3]},
    )
    annotations = read(tmp_path, given, mpp=0.5)
    assert annotations.palette.colors == ((64, 64, 64),)
    assert np.isnan(annotations.regions[0].confidence)


@settings(max_examples=20, deadline=None)
@given(LABELS, SCALES, st.tuples(st.integers(-9, 9), st.integers(0, 9)))
def test_a_feature_collection_holds_what_a_file_would(labels, scale, origin):
    before = Annotations("case.svs", PALETTES["bcss"], tuple(regions_of(labels)), (scale, scale),
                         0.5, origin, {"labels": "abc"})  # fmt: skip
    collection = to_feature_collection(before)
    assert isinstance(collection, geojson.FeatureCollection)
    assert collection.is_valid
    if before.regions:
        assert same(from_feature_collection(collection, palette=PALETTES["bcss"]), before)


def test_a_geodataframe_becomes_annotations(tmp_path):
    before = annotate([make_region(SQUARE, [HOLE])])
    frame = geopandas.GeoDataFrame.from_features(to_feature_collection(before))
    after = from_feature_collection(frame, mpp=0.25, slide="case.svs")
    assert [shapely.polygons(one.exterior, one.holes).area for one in after.regions] == [
        frame.area[0] / after.scale[0] ** 2
    ]
    assert not lint_geojson(write_geojson(after, tmp_path / "a.geojson"))


def test_a_collection_that_is_none_is_refused():
    with pytest.raises(GeoJsonError, match=r"the collection: is no GeoJSON"):
        from_feature_collection(object())
    with pytest.raises(GeoJsonError, match=r"names no slide; give slide"):
        from_feature_collection({"type": "FeatureCollection", "features": []})
    with pytest.raises(GeoJsonError, match=r"case\.svs: .*no pixel size; give mpp"):
        from_feature_collection(geojson.FeatureCollection([object_of()]), slide="case.svs")


def test_what_only_says_its_origin_lies_there(tmp_path):
    """Such as corrections from the viewer, which have no raster."""
    tree = {"type": "FeatureCollection", "features": [object_of(classification={"name": "A"})]}
    plain, said = (
        read(tmp_path, {**tree, "wsiseg": facts}, mpp=0.25)
        for facts in ({}, {"origin": [40.0, 30.0]})
    )
    assert (plain.origin, said.origin) == ((0, 0), (40, 30))
    assert np.array_equal(said.regions[0].exterior, np.add(plain.regions[0].exterior, (40, 30)))
    with pytest.raises(GeoJsonError, match=r"case\.geojson: says that its origin is \[40\]"):
        read(tmp_path, {**tree, "wsiseg": {"origin": [40]}}, mpp=0.25)
