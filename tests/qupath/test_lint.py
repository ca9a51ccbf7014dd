import contextlib
import gzip
import io
import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.qupath.documents import collect, save
from wsiseg.errors import GeoJsonError
from wsiseg.qupath import Finding, lint_geojson, read_geojson
from wsiseg.qupath.form import document as document_module
from wsiseg.qupath.form.finding import RULES

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "annotations"
UUID = "16ccf0b5-ba3f-43ac-b8f2-5cc7c958e545"
RING = [[0, 0], [100, 0], [100, 100], [0, 100], [0, 0]]
HOLE = [[20, 20], [20, 40], [40, 40], [40, 20], [20, 20]]
POLYGON = {"type": "Polygon", "coordinates": [RING]}
OTHER = [[200, 0], [300, 0], [300, 9], [200, 9], [200, 0]]


def feature(geometry=POLYGON, properties=None, **members):
    return {"type": "Feature", "geometry": geometry, "properties": properties or {}, **members}


def polygon(*rings):
    return feature({"type": "Polygon", "coordinates": list(rings)})


def multipolygon(*parts):
    return feature({"type": "MultiPolygon", "coordinates": list(parts)})


def of_class(value):
    return feature(properties={"classification": value})


def lint(tmp_path, document, name="a.geojson"):
    return lint_geojson(save(tmp_path, document, name))


def rules(findings):
    return [finding.rule for finding in findings]


CLEAN = [
    collect(),
    collect(feature(), polygon(RING, HOLE), multipolygon([RING], [OTHER])),
    feature(id=UUID),
    POLYGON,
    [feature(), POLYGON, collect(feature())],
    {"type": "FeatureCollection", "features": [], "wsiseg": {"anything": 1}},
    {"type": "Feature", "geometry": POLYGON},
    of_class("Tumor"),
    of_class({"name": "Tumor", "color": [200, 0, 0]}),
    of_class({"name": "Tumor", "color": None}),
    of_class({"names": ["Tumor", "Positive"], "color": [200, 0, 0]}),
    of_class({"name": "Tumor", "colorRGB": -16711936}),
    of_class(None),
    of_class({}),
    feature({**POLYGON, "plane": {"c": -1, "z": 0, "t": 0}}),
    feature({**POLYGON, "plane": {"z": 1}}),
    feature({"type": "Point", "coordinates": [1, 2]}),
    feature({"type": "MultiPoint", "coordinates": [[1, 2], [3, 4]]}),
    feature({"type": "LineString", "coordinates": [[1, 2], [3, 4]]}),
    feature({"type": "MultiLineString", "coordinates": [[[1, 2], [3, 4]]]}),
    feature(properties={"objectType": "detection", "color": -377282, "anything": None}),
    feature(properties={"color": [1, 2, 3], "isLocked": True, "metadata": {"a": "b"}}),
    feature(properties={"measurements": {"a": 1, "b": 0.5}}),
    feature(properties={"measurements": [{"name": "a", "value": 1}]}),
    feature(properties={"measurements": {"a": "NaN", "b": "Infinity", "c": "-Infinity"}}),
    feature(properties={"measurements": [{"name": "a", "value": "NaN"}]}),
    feature(properties={"measurements": {"a": "0.5", "b": " -.5e3f ", "c": "0x1.8p3"}}),
    collect(feature({}, {"objectType": "root", "isLocked": True}), feature()),
    polygon([[x, y, 0] for x, y in RING]),
    polygon([[0, 0], [0, 0], *RING[1:]]),
    polygon(RING[::-1]),
    polygon([[x + 0.004, y] for x, y in RING]),
]


@pytest.mark.parametrize("document", CLEAN, ids=range(len(CLEAN)))
def test_what_qupath_takes_is_clean(tmp_path, document):
    assert lint(tmp_path, document) == []


BAD = {
    "byte-order-mark": b"\xef\xbb\xbf" + json.dumps(POLYGON).encode(),
    "encoding": json.dumps(of_class("Tumör"), ensure_ascii=False).encode("latin-1"),
    "json": json.dumps(collect(feature(), feature())).encode()[:-40],
    "newline-delimited": b"\n".join(json.dumps(feature()).encode() for _ in range(3)),
    "not-a-number": json.dumps(feature(properties={"measurements": {"a": float("nan")}})).encode(),
    "top-level": "text",
    "collection-type": {"features": [feature()]},
    "collection-features": {"type": "FeatureCollection"},
    "feature-type": collect(POLYGON),
    "feature-members": feature(classification="Tumor"),
    "id-null": feature(id=None),
    "id-uuid": feature(id="PathAnnotationObject"),
    "id-duplicate": collect(feature(id=UUID), feature(id=UUID)),
    "properties": {"type": "Feature", "geometry": POLYGON, "properties": None},
    "object-type": feature(properties={"objectType": None}),
    "object-type-unknown": feature(properties={"objectType": "Annotation"}),
    "name": feature(properties={"name": None}),
    "color": feature(properties={"color": "#FF0000"}),
    "measurements": feature(properties={"measurements": {"a": "much"}}),
    "metadata": feature(properties={"metadata": {"a": {"b": 1}}}),
    "class": of_class(7),
    "class-name": of_class({"name": " ", "color": [1, 2, 3]}),
    "class-color": of_class({"name": "Tumor"}),
    "class-color-range": of_class({"name": "Tumor", "color": [0.8, 0.1, 0.1]}),
    "class-derived": of_class("Tumor: Positive"),
    "geometry": {"type": "Feature", "geometry": None, "properties": {}},
    "geometry-type": feature({"type": "GeometryCollection", "geometries": [POLYGON]}),
    "plane": feature({**POLYGON, "plane": {"c": -1, "z": 0, "t": 0, "level": 0}}),
    "coordinates": polygon([[0, 0], ["a", 0], [1, 1], [0, 0]]),
    "ring-short": polygon([[0, 0], [1, 1], [0, 0]]),
    "ring-open": polygon(RING[:-1]),
    "ring-crossing": polygon([[0, 0], [4, 4], [4, 0], [0, 8], [0, 0]]),
    "ring-touching": polygon([[0, 0], [2, 0], [2, 2], [4, 2], [4, 4], [2, 4], [2, 2], [0, 2],
                              [0, 0]]),
    "hole-outside": polygon(RING, OTHER),
    "invalid": polygon(RING, HOLE, [[25, 25], [25, 30], [30, 30], [30, 25], [25, 25]]),
    "parts-overlap": multipolygon([RING], [[[50, 50], [150, 50], [150, 150], [50, 50]]]),
    "one-part": multipolygon([RING]),
    "zero-area": polygon([[0, 0], [5, 0], [9, 0], [0, 0]]),
}  # fmt: skip


@pytest.mark.parametrize("rule", BAD)
def test_each_rule_on_its_own_bad_file(tmp_path, rule):
    findings = lint(tmp_path, BAD[rule])
    assert rules(findings) == [rule]
    assert findings[0].severity == RULES[rule]
    assert str(findings[0]).startswith(f"{RULES[rule]}: ")
    assert str(findings[0]).endswith(f"[{rule}]")


def test_every_rule_has_a_bad_file():
    elsewhere = {"extension", "compression", "size", "area-loss"}
    assert set(BAD) | elsewhere == set(RULES)


MORE = [
    ("collection-type", {"type": "featurecollection", "features": []}),
    ("feature-type", {"type": "feature", "geometry": POLYGON}),
    ("feature-type", collect("text")),
    ("geometry", {"type": "Feature", "properties": {}}),
    ("geometry-type", {"type": "GeometryCollection", "geometries": []}),
    ("geometry-type", feature({"type": "Circle", "coordinates": [0, 0, 5]})),
    ("class-name", of_class("a\nb")),
    ("class-name", of_class({"color": [1, 2, 3]})),
    ("class-color", of_class({"name": "Tumor", "color": -377282})),
    ("class-color", of_class({"name": "Tumor", "color": "#C80000"})),
    ("class-color", of_class({"name": "Tumor", "color": [1, 2]})),
    ("class-color-range", of_class({"name": "Tumor", "color": [1, 2, 256]})),
    ("measurements", feature(properties={"measurements": {"a": None}})),
    ("measurements", feature(properties={"measurements": [{"name": "a", "value": "b"}]})),
    ("measurements", feature(properties={"measurements": [1]})),
    ("measurements", feature(properties={"measurements": {"a": "nan"}})),  # Java's is "NaN"
    ("measurements", feature(properties={"measurements": {"a": "1_000"}})),
    ("measurements", feature(properties={"measurements": {"a": ""}})),
    ("coordinates", polygon()),
    ("coordinates", polygon(RING, [])),
    ("zero-area", polygon([])),  # a rectangle of width 0, as QuPath 0.5.1 writes it
    ("zero-area", multipolygon([[]], [[]])),
    ("geometry-type", feature({}, {"objectType": "annotation"})),
    ("coordinates", polygon([1, 2, 3])),
    ("coordinates", polygon([[0, 0], [5, None], [9, 9], [0, 0]])),
    ("coordinates", feature({"type": "Polygon"})),
    ("coordinates", feature({"type": "MultiPolygon", "coordinates": []})),
    ("coordinates", feature({"type": "MultiPolygon", "coordinates": [7, 8]})),
    ("coordinates", feature({"type": "Point", "coordinates": ["a", "b"]})),
    ("coordinates", polygon([[0, 0], [1e297, 0], [1e297, 1], [0, 0]])),
    ("coordinates", feature({"type": "Point", "coordinates": [1e10, 0]})),
    ("ring-open", polygon([*RING[:-1], [0, 0.001]])),
    ("ring-crossing", polygon([[0, 0], [4, 4], [4, 0], [0, 4], [0, 0]])),  # its lobes cancel
    ("plane", feature({**POLYGON, "plane": None})),
    ("json", b""),
    ("json", b"[" * 5000),
    ("json", b"{'type': 'Feature'}"),
]


@pytest.mark.parametrize(("rule", "document"), MORE, ids=range(len(MORE)))
def test_other_ways_to_break_a_rule(tmp_path, rule, document):
    assert rules(lint(tmp_path, document)) == [rule]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_coordinate_that_is_no_number_is_an_error(tmp_path, number):
    text = json.dumps(polygon(RING)).replace("100", number)
    findings = lint(tmp_path, text.encode())
    assert rules(findings) == ["not-a-number", "coordinates"]
    assert findings[1].severity == "error"


def test_crossing_is_judged_after_rounding(tmp_path):
    """Valid as it stands; its corners fall together at 0.01 px, and the ring crosses itself."""
    ring = [[0, 0], [10, 0.004], [20, 0], [20, 10], [10, -0.004], [0, 10], [0, 0]]
    assert set(rules(lint(tmp_path, polygon(ring)))) <= {"ring-crossing", "ring-touching"}
    assert rules(lint(tmp_path, polygon(ring))) != []


@pytest.mark.parametrize("name", ["a.gz", "a.txt", "a.geojsonl", "geojson"])
def test_extension(tmp_path, name):
    data = json.dumps(POLYGON).encode()
    findings = lint(tmp_path, gzip.compress(data) if name == "a.gz" else data, name)
    assert rules(findings) == ["extension"]
    assert name in findings[0].message


@pytest.mark.parametrize("name", ["a.geojson", "a.JSON", "a.geojson.gz", "a.json.gz", "a.zip"])
def test_packed_forms_are_read(tmp_path, name):
    data = json.dumps(BAD["name"]).encode()
    if name.endswith(".gz"):
        data = gzip.compress(data)
    if name.endswith(".zip"):
        data = zipped({"one.geojson": data, "two.json": data, "notes.txt": b"no"})
    assert rules(lint(tmp_path, data, name)) == ["name"] * (2 if name.endswith(".zip") else 1)


def zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.geojson.gz", b"not gzip"),
        ("a.geojson.gz", gzip.compress(json.dumps(POLYGON).encode())[:-12]),
        ("a.zip", b"not zip"),
        ("a.zip", zipped({"notes.txt": b"no"})),
    ],
    ids=["not gzip", "cut gzip", "not zip", "zip without JSON"],  # the bytes hold the time
)
def test_compression(tmp_path, name, data):
    assert rules(lint(tmp_path, data, name)) == ["compression"]


@pytest.mark.parametrize("name", ["a.geojson.gz", "a.zip"])
def test_a_plain_file_that_is_named_as_packed_is_told_so(tmp_path, name):
    (finding,) = lint(tmp_path, b"\xef\xbb\xbf\n" + json.dumps(collect(feature())).encode(), name)
    advice = f"it is not compressed; leave {Path(name).suffix} out of its name"
    assert (finding.rule, advice in finding.message) == ("compression", True)


def test_findings_name_the_feature_and_its_id(tmp_path):
    findings = lint(tmp_path, collect(feature(), feature(id=UUID, properties={"name": None})))
    assert [(finding.feature, finding.id) for finding in findings] == [(1, UUID)]
    assert str(findings[0]).startswith(f"error: feature 1 ({UUID}): ")


def test_children_are_linted_too(tmp_path):
    child = feature(properties={"name": None})
    assert rules(lint(tmp_path, feature(properties={"childObjects": [child]}))) == ["name"]


def test_findings_are_in_file_order(tmp_path):
    document = collect(polygon(RING[:-1]), feature(id=None), polygon(RING[:3]))
    findings = lint(tmp_path, document)
    assert [finding.feature for finding in findings] == [0, 1, 2]


BY_LINE = {
    **BAD,
    "id-duplicate": feature(id=UUID),
    "feature-type": POLYGON,
    "children": feature(properties={"childObjects": [feature(properties={"name": None})]}),
}


@pytest.mark.parametrize(
    "rule", [rule for rule, bad in BY_LINE.items() if isinstance(bad, dict) and "geometry" in bad]
)
@pytest.mark.parametrize("batch", [1, 10_000])
def test_one_feature_a_line_is_judged_as_any_other(tmp_path, monkeypatch, rule, batch):
    """Such files are read batch by batch; the same document on one line is not."""
    monkeypatch.setattr(document_module, "_BATCH", batch)
    document = collect(feature(id=UUID), *[BY_LINE[rule]] * 3, feature(properties={"name": None}))
    lines = ",\n".join(json.dumps(member) for member in document["features"])
    by_line = f'{{"type":"FeatureCollection","a":"b","features":[\n{lines}\n]}}\n'.encode()
    list(document_module.parse_lines(by_line)) if rule != "children" else None
    findings = lint(tmp_path, by_line)
    assert findings == lint(tmp_path, document)
    assert rule in rules(findings) or rule == "children"


@pytest.mark.parametrize(
    "text",
    [
        b'{"features":[\n{"type":"Feature"}\n]}',
        b'{"type":"FeatureCollection","features":[\n{"type":"Feature"}\n{"type":"Feature"}\n]}',
        b'{"type":"FeatureCollection","features":[\n{"type":"Feature"},\n]}',
        b'{"type":"FeatureCollection","features":[\n7,\n{"type":"Feature"}\n]}',
        b'{"type":"FeatureCollection","a":["features":[\n{"type":"Feature"}\n]}',
        b'{"type":"FeatureCollection","features":[\n{"type":"Feature"\n]}',
    ],
)
def test_nearly_one_feature_a_line_is_judged_whole(tmp_path, monkeypatch, text):
    monkeypatch.setattr(document_module, "_BATCH", 1)
    expected = rules(lint(tmp_path, text.replace(b"\n", b" ")))
    assert rules(lint(tmp_path, text)) == expected != []


def test_too_many_annotations_is_advice(tmp_path):
    findings = lint(tmp_path, collect(*[feature()] * 5001))
    assert rules(findings) == ["size"]
    assert "5,001 annotations" in findings[0].message
    detections = [feature(properties={"objectType": "detection"})] * 5001
    assert lint(tmp_path, collect(*detections)) == []


def test_a_file_that_cannot_be_read_raises(tmp_path):
    with pytest.raises(GeoJsonError, match=r"gone\.geojson: cannot be read"):
        lint_geojson(tmp_path / "gone.geojson")
    with pytest.raises(GeoJsonError, match=r"cannot be read"):
        lint_geojson(tmp_path)


def test_a_finding_about_the_file_names_no_feature():
    assert str(Finding("json", "is not JSON")) == "error: is not JSON [json]"


@pytest.mark.skipif(not DATA.is_dir(), reason="shared/data is not beside the checkout")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dlup_qupath05.geojson", []),
        ("histoqc_holed.geojson", []),
        ("histoqc_geojson_example.json", ["id-uuid", "id-uuid"]),
    ],
)
def test_files_of_others(name, expected):
    assert rules(lint_geojson(DATA / name)) == expected


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=True) | st.text(max_size=3) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
WHOLE = collect(
    feature(id=UUID, properties={
        "objectType": "annotation", "name": "a", "color": [1, 2, 3], "metadata": {"a": "b"},
        "classification": {"name": "Tumor", "color": [200, 0, 0]}, "measurements": {"a": 1},
        "childObjects": [feature({**POLYGON, "plane": {"c": -1}})],
    }),
    multipolygon([RING, HOLE], [OTHER]),
    feature({"type": "Point", "coordinates": [1, 2]}),
    of_class({"names": ["Tumor", "Positive"], "color": [1, 2, 3]}),
    feature(properties={"measurements": [{"name": "a", "value": 1}]}),
)  # fmt: skip


def places_of(node, path=()):
    yield path
    items = list(node.items()) if isinstance(node, dict) else []
    for key, child in enumerate(node) if isinstance(node, list) else items:
        yield from places_of(child, (*path, key))


def replace_at(node, path, value):
    if not path:
        return value
    copy = dict(node) if isinstance(node, dict) else list(node)
    copy[path[0]] = replace_at(copy[path[0]], path[1:], value)
    return copy


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(places_of(WHOLE))), ANYTHING)
def test_whatever_is_wrong_is_a_finding_never_an_exception(tmp_path_factory, path, value):
    """Any value in any place of a document that holds every member."""
    folder = tmp_path_factory.mktemp("any")
    assert lint(folder, WHOLE) == []
    findings = lint(folder, replace_at(WHOLE, path, value))
    assert all(finding.rule in RULES and str(finding) for finding in findings)
    with contextlib.suppress(GeoJsonError):  # reading refuses, and says so, or reads
        assert all(one.geometry is not None for one in read_geojson(folder / "a.geojson"))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 400), st.booleans())
def test_bytes_that_were_damaged_are_findings(tmp_path_factory, junk, at, cut):
    text = json.dumps(WHOLE).encode()
    damaged = text[:at] + junk + (b"" if cut else text[at:])
    lint(tmp_path_factory.mktemp("any"), damaged)
