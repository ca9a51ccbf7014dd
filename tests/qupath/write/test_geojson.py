import gzip
import json
import uuid

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.qupath.regions import HOLE, SQUARE, annotate, make_region, regions_of
from wsiseg.annotations import PALETTES, Annotations, Palette
from wsiseg.errors import GeoJsonError
from wsiseg.qupath import lint_geojson, read_geojson, write_geojson
from wsiseg.qupath.form.shapes import build_polygons
from wsiseg.qupath.write import geojson as write_module
from wsiseg.qupath.write import outlines as outlines_module
from wsiseg.qupath.write.geojson import identify_regions
from wsiseg.trace import (
    merge_blocks,
    simplify_regions,
    smooth_regions,
    trace_block,
    trace_regions,
)

LABELS = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)),
                elements=st.sampled_from([0, 1, 255]))  # fmt: skip
SCALES = st.sampled_from([1.0, 2.0, 1.9775, 0.5, 8.0, 3.3333333])


def write_slowly(annotations: Annotations) -> list:
    """What `write_geojson` should write of valid regions, one plain step after the other."""
    (sx, sy), (ox, oy) = annotations.scale, annotations.origin
    return [
        [
            [[_round(x * sx - ox), _round(y * sy - oy)] for x, y in ring.tolist()]
            for ring in (region.exterior, *region.holes)
        ]
        for region in annotations.regions
    ]


def test_the_template_of_the_facts(tmp_path):
    region = make_region(holes=[HOLE], area=96, confidence=0.87)
    annotations = annotate([region], provenance={"model": "tiny"}, origin=(3, 5))
    path = write_geojson(annotations, tmp_path / "case.geojson")
    document = json.loads(path.read_bytes())
    assert list(document) == ["type", "wsiseg", "features", "wsiseg_sha256"]
    assert document["wsiseg"]["model"] == "tiny"
    assert document["wsiseg"]["origin"] == [3, 5]
    (feature,) = document["features"]
    assert uuid.UUID(feature.pop("id")).version == 5
    assert feature == {
        "type": "Feature",
        "geometry": {
            "type": "Polygon",
            "coordinates": [
                [[-3, -5], [17, -5], [17, 15], [-3, 15], [-3, -5]],
                [[1, -1], [1, 3], [5, 3], [5, -1], [1, -1]],
            ],
        },
        "properties": {
            "objectType": "annotation",
            "name": "Tumor 1",
            "classification": {"name": "Tumor", "color": [200, 0, 0]},
            "isLocked": True,
            "measurements": {"Area mm^2": 96 * 0.25e-6, "Mean confidence": 0.87},
        },
    }


def test_numbers_are_compact(tmp_path):
    region = make_region(confidence=1.0)
    path = write_geojson(annotate([region], scale=(1.5, 1.234)), tmp_path / "a.geojson")
    text = path.read_text()
    assert "[[[0,0],[15,0],[15,12.34],[0,12.34],[0,0]]]" in text


def test_text_that_looks_like_a_number_stays(tmp_path):
    palette = Palette(("Grade 2.0, high",), ((1, 2, 3),))
    annotations = Annotations("1.0, a].svs", palette, (make_region(),), (1.5, 1.5), 0.5)
    (feature,) = read_geojson(write_geojson(annotations, tmp_path / "a.geojson"))
    assert feature.class_name == "Grade 2.0, high"


def test_a_name_that_is_not_utf8(tmp_path):
    name = b"caf\xe9.svs".decode("utf-8", "surrogateescape")
    annotations = Annotations(name, PALETTES["bcss"], (make_region(),), (1.0, 1.0), 0.5)
    path = write_geojson(annotations, tmp_path / "a.geojson")
    assert json.loads(path.read_bytes())["wsiseg"]["slide"] == "caf\\udce9.svs"


def test_an_empty_slide_gives_an_empty_collection(tmp_path):
    path = write_geojson(annotate([]), tmp_path / "a.geojson")
    assert json.loads(path.read_bytes())["features"] == []
    assert lint_geojson(path) == []
    assert read_geojson(path) == []


def _round(value: float) -> float:
    return float(np.round(value, 2))  # Python's own round takes halves another way


@settings(max_examples=60, deadline=None)
@given(LABELS, SCALES, st.tuples(st.integers(-9, 9), st.integers(0, 9)))
def test_any_raster_is_written_exactly_and_lints_clean(tmp_path_factory, labels, scale, origin):
    annotations = annotate(regions_of(labels), scale=(scale, scale), origin=origin)
    path = write_geojson(annotations, tmp_path_factory.mktemp("any") / "a.geojson")
    assert lint_geojson(path) == []
    features = json.loads(path.read_bytes())["features"]
    found = [feature["geometry"]["coordinates"] for feature in features]
    assert found == write_slowly(annotations)
    shapes = [feature.geometry for feature in read_geojson(path)]
    areas = [region.area_px * scale * scale for region in annotations.regions]
    # A ring's corners move by up to half a hundredth of a pixel.
    limits = [0.005 * shape.length + 1e-9 for shape in shapes]
    assert np.all(np.abs(shapely.area(shapes) - areas) <= limits)
    assert [feature.class_name for feature in read_geojson(path)] == [
        annotations.palette.names[region.label] for region in annotations.regions
    ]


def test_write_read_write_is_a_fixed_point(tmp_path):
    labels = np.random.default_rng(3).choice(np.array([0, 1, 2, 255], np.uint8), (12, 12))
    first = regions_of(labels)
    path = write_geojson(annotate(first, scale=(1.0, 1.0)), tmp_path / "a.geojson")
    again = [
        make_region(
            shapely.get_coordinates(feature.geometry.exterior),
            [shapely.get_coordinates(ring) for ring in feature.geometry.interiors],
            region.label, region.area_px, region.confidence,
        )
        for feature, region in zip(read_geojson(path), first, strict=True)
    ]  # fmt: skip
    second = write_geojson(annotate(again, scale=(1.0, 1.0)), tmp_path / "b.geojson")
    assert second.read_bytes() == path.read_bytes()


def test_ids_hang_on_the_region_alone(tmp_path):
    one, two = make_region(), make_region(np.array(SQUARE) + 20)
    turned = make_region(np.array([*SQUARE[2:], *SQUARE[1:3]]))

    def ids(*regions):
        path = write_geojson(annotate(regions), tmp_path / "a.geojson")
        return [feature["id"] for feature in json.loads(path.read_bytes())["features"]]

    assert ids(one, two) == ids(two, one)[::-1]
    assert ids(one) == ids(turned), "the id must not hang on where the ring starts"
    assert len({*ids(one, two, one)}) == 3
    assert all(uuid.UUID(name).version == 5 for name in ids(one, two, one))
    assert ids(one) == ["11dff850-292c-550a-b5af-1561b8cd85fc"], "ids are for ever"


def test_an_outline_that_changed_has_another_id(tmp_path):
    """Even where class, first corner and area stay."""
    bent = [[0, 0], [10, 0], [10, 9], [9, 9], [9, 11], [8, 11], [8, 10], [0, 10], [0, 0]]
    other = [[0, 0], [10, 0], [10, 9], [9, 9], [9, 10], [8, 10], [8, 11], [7, 11], [7, 10],
             [0, 10], [0, 0]]  # fmt: skip
    holed = make_region(holes=[HOLE])
    moved = make_region(holes=[np.array(HOLE) + 1])
    regions = [make_region(), make_region(bent), make_region(other), holed, moved]
    path = write_geojson(annotate(regions), tmp_path / "a.geojson")
    assert len({feature["id"] for feature in json.loads(path.read_bytes())["features"]}) == 5


def test_names_count_within_a_class(tmp_path):
    regions = [make_region(label=label) for label in (0, 1, 0, 3, 0)]
    names = [f.name for f in read_geojson(write_geojson(annotate(regions), tmp_path / "a.json"))]
    assert names == ["Tumor 1", "Stroma 1", "Tumor 2", "Necrosis 1", "Tumor 3"]


def test_gzip_is_reproducible_and_holds_the_same(tmp_path):
    regions = [make_region(holes=[HOLE])]
    plain = write_geojson(annotate(regions), tmp_path / "a.geojson")
    packed = write_geojson(annotate(regions), tmp_path / "b.geojson.gz")
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()
    assert packed.read_bytes()[3:8] == bytes(5), "no name and no time in the header"
    assert lint_geojson(packed) == []


def test_chunks_do_not_show(tmp_path, monkeypatch):
    labels = np.random.default_rng(0).integers(0, 4, (20, 20)).astype(np.uint8)
    annotations = annotate(regions_of(labels))
    whole = write_geojson(annotations, tmp_path / "a.geojson").read_bytes()
    monkeypatch.setattr(write_module, "_CHUNK_POINTS", 1)
    pieces = write_geojson(annotations, tmp_path / "b.geojson").read_bytes()
    assert pieces == whole


@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_pieces_of_large_exact_regions_do_not_show(tmp_path, monkeypatch, piece):
    labels = np.random.default_rng(0).integers(0, 2, (40, 30)).astype(np.uint8)
    regions = trace_regions(labels)
    assert max(len(region.holes) for region in regions) > 3
    for scale in ((2.0, 2.0), (1.37, 0.02)):
        checked = annotate(regions, scale=scale, origin=(3, 7))
        exact = annotate(regions, scale=scale, origin=(3, 7), exact=True)
        whole = write_geojson(checked, tmp_path / "a.geojson").read_bytes()
        assert write_geojson(exact, tmp_path / "b.geojson").read_bytes() == whole
        identities = [identity for _, identity in identify_regions(checked)]
        with monkeypatch.context() as patch:
            patch.setattr(write_module, "_CHUNK_POINTS", 1)
            patch.setattr(outlines_module, "_PIECE", piece)
            assert write_geojson(exact, tmp_path / "b.geojson").read_bytes() == whole
            assert [identity for _, identity in identify_regions(exact)] == identities


@pytest.mark.parametrize(
    ("scale", "judged"), [((2.0, 2.0), 0), ((0.25, 1.0), 0), ((1.983, 2.0), 1)]
)
def test_simplified_outlines_are_judged_only_where_rounding_moves_them(
    tmp_path, monkeypatch, scale, judged
):
    labels = np.full((82, 122), 255, np.uint8)
    squares = np.random.default_rng(0).integers(0, 3, (20, 30))
    labels[1:-1, 1:-1] = squares.repeat(4, 0).repeat(4, 1)
    block = trace_block(labels, None, (0, 0), 255, junctions=True)
    regions = simplify_regions(merge_blocks({0: block}, 1, scored=False), 3.0)
    calls = []
    monkeypatch.setattr(
        outlines_module, "build_polygons", lambda *a: calls.append(1) or build_polygons(*a)
    )
    for outlines in (regions, smooth_regions(regions)):
        calls.clear()
        checked = annotate(outlines, scale=scale, origin=(3, 7))
        whole = write_geojson(checked, tmp_path / "a.geojson").read_bytes()
        assert len(calls) == 1
        valid = annotate(outlines, scale=scale, origin=(3, 7), valid=True)
        assert write_geojson(valid, tmp_path / "b.geojson").read_bytes() == whole
        assert len(calls) == 1 + judged
        found = lint_geojson(tmp_path / "b.geojson")
        assert not [finding for finding in found if finding.severity == "error"]


def test_an_open_ring_of_a_large_region_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(write_module, "_CHUNK_POINTS", 1)
    annotations = annotate([make_region(SQUARE[:-1])], exact=True)
    with pytest.raises(GeoJsonError, match="last point is not its first"):
        write_geojson(annotations, tmp_path / "a.geojson")


def test_a_self_touching_outline_is_mended(tmp_path):
    touching = [[0, 0], [2, 0], [2, 2], [4, 2], [4, 4], [2, 4], [2, 2], [0, 2], [0, 0]]
    crossing = [[0, 0], [4, 4], [4, 0], [0, 4], [0, 0]]
    regions = [make_region(touching, area=8), make_region(crossing, label=1, area=8)]
    for scale in (2.0, 1.37):
        path = write_geojson(annotate(regions, scale=(scale, scale)), tmp_path / "a.geojson")
        assert lint_geojson(path) == []
        shapes = [feature.geometry for feature in read_geojson(path)]
        assert [shape.geom_type for shape in shapes] == ["MultiPolygon", "MultiPolygon"]
        assert shapely.area(shapes) == pytest.approx([8 * scale**2, 8 * scale**2], abs=0.2)


def test_only_what_rounds_to_nothing_is_left_out(tmp_path):
    thin = [[0, 0], [100, 0], [100, 1], [0, 1], [0, 0]]
    annotations = annotate([make_region(thin), make_region(label=2)], scale=(0.1, 0.001))
    path = write_geojson(annotations, tmp_path / "a.geojson")
    (feature,) = read_geojson(path)
    assert feature.class_name == "Immune cells"
    assert lint_geojson(path) == []


def test_confidence_that_is_no_number_is_left_out(tmp_path):
    region = make_region(confidence=float("nan"))
    (feature,) = read_geojson(write_geojson(annotate([region]), tmp_path / "a.geojson"))
    assert list(feature.properties["measurements"]) == ["Area mm^2"]


@pytest.mark.parametrize("name", ["a.gz", "a.txt", "a", "a.geojson.zip"])
def test_a_name_that_qupath_ignores_is_refused(tmp_path, name):
    with pytest.raises(GeoJsonError, match=r"QuPath does not import this file name"):
        write_geojson(annotate([make_region()]), tmp_path / name)


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        (annotate([make_region(SQUARE[:4])]), "last point is not its first"),
        (annotate([make_region([[0, 0], [1, 1], [0, 0]])]), "has 3 points; it needs 4"),
        (
            Annotations("a", Palette((" ",), ((1, 2, 3),)), (make_region(),), (1.0, 1.0), 0.5),
            r"blank or not text \[class-name\]",
        ),
        (
            Annotations("a", Palette(("a\nb",), ((1, 2, 3),)), (make_region(),), (1.0, 1.0), 0.5),
            r"contains a line break \[class-name\]",
        ),
    ],
)
def test_a_broken_rule_never_replaces_the_file(tmp_path, annotations, message):
    path = tmp_path / "a.geojson"
    path.write_text("as it was")
    with pytest.raises(GeoJsonError, match=message) as caught:
        write_geojson(annotations, path)
    assert str(path) in str(caught.value)
    assert path.read_text() == "as it was"
    assert [file.name for file in tmp_path.iterdir()] == ["a.geojson"], "a part file was left"


def test_folders_are_made_and_replaced_files_keep_their_rights(tmp_path):
    path = write_geojson(annotate([make_region()]), tmp_path / "a" / "b" / "c.geojson")
    assert path.stat().st_mode & 0o444 == 0o444
