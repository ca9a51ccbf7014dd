import gzip
import json

import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.qupath.test_lint import (
    ANYTHING,
    BAD,
    CLEAN,
    DATA,
    HOLE,
    MORE,
    OTHER,
    POLYGON,
    RING,
    UUID,
    WHOLE,
    collect,
    feature,
    multipolygon,
    of_class,
    places_of,
    polygon,
    replace_at,
    zipped,
)
from wsiseg.cli import app
from wsiseg.errors import GeoJsonError
from wsiseg.qupath import Repair, fix_geojson, lint_geojson, read_geojson

# What holds nothing to be kept, and what is judged otherwise than it is found.
LOST = {"top-level", "collection-features", "geometry", "zero-area", "ring-short", "coordinates"}
CALLED = {"ring-crossing", "ring-touching", "hole-outside", "parts-overlap"}


def fix(tmp_path, document, name="a.geojson"):
    """The repaired features, and what was done."""
    path = tmp_path / name
    path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
    before = path.read_bytes()
    copy, repairs = fix_geojson(path, tmp_path / "out.geojson")
    assert path.read_bytes() == before, "the original must not change"
    assert lint_geojson(copy) == []
    return json.loads(copy.read_bytes())["features"], repairs


def fix_one(tmp_path, document):
    (fixed,), repairs = fix(tmp_path, document)
    return fixed, repairs


@pytest.mark.parametrize("document", CLEAN, ids=range(len(CLEAN)))
def test_what_is_clean_stays_as_it_is(tmp_path, document):
    features, repairs = fix(tmp_path, document)
    assert {repair.rule for repair in repairs} <= {"feature-type"}  # a bare geometry
    for before, after in zip(_plain(document), features, strict=True):
        assert after == before


def _plain(document):
    if isinstance(document, list):
        return [one for member in document for one in _plain(member)]
    if "features" in document:
        return document["features"]
    return [document if "geometry" in document else feature(document)]


@pytest.mark.parametrize("rule", BAD)
def test_each_rule_is_repaired_and_told(tmp_path, rule):
    features, repairs = fix(tmp_path, BAD[rule])
    assert repairs, "what was done must be said"
    expected = {"invalid"} if rule in CALLED else {rule}
    assert expected & {repair.rule for repair in repairs}
    assert bool(features) != (rule in LOST)
    assert all(str(repair).startswith(("fixed: ", "dropped: ")) for repair in repairs)


@pytest.mark.parametrize(("rule", "document"), MORE, ids=range(len(MORE)))
def test_other_ways_to_break_a_rule_are_repaired(tmp_path, rule, document):
    fix(tmp_path, document)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"name": "Tumor"}, {"name": "Tumor", "color": [200, 0, 0]}),
        ({"name": "Mine"}, {"name": "Mine", "color": None}),
        ({"name": "a", "color": -3670016}, {"name": "a", "color": [200, 0, 0]}),
        ({"name": "a", "color": "#C80000"}, {"name": "a", "color": [200, 0, 0]}),
        ({"name": "a", "color": [0.2, 1.0, 0.0]}, {"name": "a", "color": [51, 255, 0]}),
        ({"name": "a", "color": [1, 300, -4]}, {"name": "a", "color": [1, 255, 0]}),
        ({"name": "a", "color": "red"}, {"name": "a", "color": None}),
        ("Tumor: Positive", {"names": ["Tumor", "Positive"], "color": [200, 0, 0]}),
        ({"name": "a\nb", "color": [1, 2, 3]}, {"name": "a b", "color": [1, 2, 3]}),
        ({"name": 3, "color": None}, {"name": "3", "color": None}),
        ({"name": "  ", "color": None}, None),
        (7, None),
    ],
)  # fmt: skip
def test_classifications(tmp_path, given, expected):
    fixed, _ = fix_one(tmp_path, of_class(given))
    assert fixed["properties"].get("classification") == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"objectType": "Detection"}, {"objectType": "detection"}),
        ({"objectType": "Nucleus"}, {"objectType": "annotation"}),
        ({"objectType": None}, {}),
        ({"name": None}, {}),
        ({"color": "#0102FF"}, {"color": [1, 2, 255]}),
        ({"color": [1, 2]}, {}),
        ({"measurements": {"a": "0.5", "b": None, "c": "much", "d": True, "e": 2, "f": "1_0"}},
         {"measurements": {"a": "0.5", "d": 1, "e": 2, "f": 10.0}}),
        ({"measurements": [{"name": "a", "value": "1"}, 7, {"name": "b"}]},
         {"measurements": [{"name": "a", "value": "1"}]}),
        ({"measurements": {"a": "NaN", "b": "-Infinity", "c": "nan", "d": "-inf", "e": None}},
         {"measurements": {"a": "NaN", "b": "-Infinity", "c": "NaN", "d": "-Infinity"}}),
        ({"metadata": {"a": {"b": 1}, "c": "d"}}, {"metadata": {"a": '{"b":1}', "c": "d"}}),
        ({"unknown": None, "name": "kept"}, {"unknown": None, "name": "kept"}),
    ],
)  # fmt: skip
def test_properties(tmp_path, given, expected):
    fixed, _ = fix_one(tmp_path, feature(properties=given))
    assert fixed["properties"] == expected


def test_misplaced_members_move(tmp_path):
    fixed, repairs = fix_one(
        tmp_path, feature(properties={"name": "inside"}, name="outside", classification="Tumor")
    )
    assert fixed["properties"] == {"name": "inside", "classification": "Tumor"}
    assert [repair.dropped for repair in repairs] == [True, False]


def test_numbers_that_are_none_are_left_out(tmp_path):
    given = {"measurements": {"a": float("nan"), "b": 1.5}, "color": [1, float("inf"), 2]}
    fixed, repairs = fix_one(tmp_path, feature(properties=given))
    assert fixed["properties"] == {"measurements": {"a": "NaN", "b": 1.5}}
    assert list(map(str, repairs[:2])) == [
        "fixed: 1 NaN or Infinity among measurements are text now [not-a-number]",
        "dropped: 1 NaN or Infinity left out [not-a-number]",
    ]


def test_ids(tmp_path):
    features, repairs = fix(
        tmp_path, collect(feature(id=UUID), feature(id=UUID), feature(id=None), feature(id="x"))
    )
    ids = [one["id"] for one in features]
    assert ids[0] == UUID
    assert len(set(ids)) == 4
    assert [(r.rule, r.feature) for r in repairs] == [
        ("id-duplicate", 1), ("id-null", 2), ("id-uuid", 3),
    ]  # fmt: skip
    assert fix(tmp_path, collect(*[feature(id=UUID)] * 2))[0][1]["id"] == ids[1], "stable"


@pytest.mark.parametrize(
    ("given", "kind", "area"),
    [
        (polygon(RING[:-1]), "Polygon", 10_000),
        (polygon([[0, 0], [4, 4], [4, 0], [0, 4], [0, 0]]), "MultiPolygon", 8),
        (polygon(RING, OTHER), "Polygon", 10_000),
        (polygon(RING, HOLE[:-1]), "Polygon", 9600),
        (polygon(RING, HOLE[:2]), "Polygon", 10_000),
        (polygon([*RING[:2], [100, "x"], *RING[2:]]), "Polygon", 10_000),
        (multipolygon([RING]), "Polygon", 10_000),
        (multipolygon([RING], [[[50, 0], [150, 0], [150, 100], [50, 100], [50, 0]]]),
         "Polygon", 15_000),
        (multipolygon([RING], [[[7, 7], [8, 8], [7, 7]]]), "Polygon", 10_000),
        (feature({"type": "polygon", "coordinates": [RING]}), "Polygon", 10_000),
        (feature({**POLYGON, "plane": {"z": 1, "level": 0}}), "Polygon", 10_000),
    ],
)  # fmt: skip
def test_outlines(tmp_path, given, kind, area):
    fixed, _ = fix_one(tmp_path, given)
    assert fixed["geometry"]["type"] == kind
    assert shapely.from_geojson(json.dumps(fixed["geometry"])).area == area
    assert fixed["geometry"].get("plane") in (None, {"z": 1})


def test_a_collection_of_geometries_is_taken_apart(tmp_path):
    point = {"type": "Point", "coordinates": [1, 2]}
    inner = {"type": "GeometryCollection", "geometries": [POLYGON, {"type": "Circle"}, point]}
    child = feature(properties={"name": None})
    given = feature(
        {"type": "GeometryCollection", "geometries": [point, inner], "plane": {"z": 2}},
        {"name": "mine", "childObjects": [child]}, id=UUID,
    )  # fmt: skip
    features, repairs = fix(tmp_path, given)
    kinds = [one["geometry"]["type"] for one in features]
    assert kinds == ["Point", "Polygon", "Point"]
    assert [one.get("id") for one in features] == [UUID, None, None]
    assert [one["properties"]["name"] for one in features] == ["mine"] * 3
    assert [len(one["properties"].get("childObjects", [])) for one in features] == [1, 0, 0]
    assert {one["geometry"]["plane"]["z"] for one in features} == {2}
    assert ("name", 1) in [(repair.rule, repair.feature) for repair in repairs]


def test_children_of_what_is_lost_stay(tmp_path):
    given = {
        "type": "Feature",
        "geometry": None,
        "properties": {"childObjects": [feature(id=UUID)]},
    }
    features, repairs = fix(tmp_path, given)
    assert features == [feature(id=UUID)]
    assert [str(repair) for repair in repairs] == [
        "dropped: feature 0: it has no geometry [geometry]"
    ]


@pytest.mark.parametrize("at", [0.3, 0.7, 0.999])
def test_a_file_that_was_cut_off_gives_its_whole_features(tmp_path, at):
    data = json.dumps(collect(*[feature(id=None)] * 50)).encode()
    cut = data[: int(len(data) * at)]
    features, repairs = fix(tmp_path, cut)
    assert len(features) == pytest.approx(50 * at, abs=1.1)
    assert "what follows character" in str(repairs[0])
    packed = gzip.compress(json.dumps(collect(*[feature()] * 5000)).encode())
    features, repairs = fix(tmp_path, packed[:-20], "b.geojson.gz")
    assert len(features) > 4000
    assert [repair.rule for repair in repairs] == ["compression", "json"]


def test_lines_become_a_collection(tmp_path):
    lines = [json.dumps(feature(properties={"name": str(i)})) for i in range(3)]
    features, repairs = fix(tmp_path, "\n".join([*lines, "{"]).encode())
    assert [one["properties"]["name"] for one in features] == ["0", "1", "2"]
    assert [repair.rule for repair in repairs] == ["newline-delimited", "json"]


def test_archives_and_other_names(tmp_path):
    data = json.dumps(collect(feature())).encode()
    assert len(fix(tmp_path, zipped({"a.json": data, "b.geojson": data}), "a.zip")[0]) == 2
    assert fix(tmp_path, data, "a.txt")[1][0].rule == "extension"


@pytest.mark.parametrize("name", ["a.geojson.gz", "a.zip"])
def test_a_plain_file_that_is_named_as_packed_is_read(tmp_path, name):
    """It was called impossible to decompress, which it is, by the command that repairs."""
    features, (repair,) = fix(tmp_path, json.dumps(collect(feature(id=UUID))).encode(), name)
    assert [one["id"] for one in features] == [UUID]
    assert (repair.rule, repair.dropped) == ("compression", False)


def test_further_members_stay(tmp_path):
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({**collect(feature(id=None)), "wsiseg": {"slide": "a.svs"}}))
    copy, _ = fix_geojson(path)
    assert copy == tmp_path / "a.fixed.geojson"
    assert json.loads(copy.read_bytes())["wsiseg"] == {"slide": "a.svs"}


@pytest.mark.parametrize("name", ["a.geojson", "a.json", "a.geojson.gz", "a.json.zip", "a.txt"])
def test_the_copy_never_replaces_what_was_not_named(tmp_path, name):
    path = tmp_path / name
    data = json.dumps(collect(feature())).encode()
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    if name.endswith("zip"):
        path.write_bytes(zipped({"a.json": data}))
    copy, _ = fix_geojson(path)
    assert copy.name == ("a.txt.fixed.geojson" if name == "a.txt" else "a.fixed.geojson")
    with pytest.raises(GeoJsonError, match=r"fixed\.geojson: already exists; name the copy"):
        fix_geojson(path)
    with pytest.raises(GeoJsonError, match=r"name the copy \.geojson or \.json"):
        fix_geojson(path, tmp_path / "a.gz")
    if name in ("a.geojson", "a.json"):
        with pytest.raises(GeoJsonError, match="is the input file; choose another name"):
            fix_geojson(path, path)


def test_what_cannot_be_read_at_all_is_an_error(tmp_path):
    with pytest.raises(GeoJsonError, match=r"gone\.geojson: cannot be read"):
        fix_geojson(tmp_path / "gone.geojson")
    (tmp_path / "a.zip").write_bytes(b"no zip")
    with pytest.raises(GeoJsonError, match="cannot be decompressed at all"):
        fix_geojson(tmp_path / "a.zip")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(places_of(WHOLE))), ANYTHING)
@example(("features", 0, "geometry", "coordinates", 0, 4), {})  # a KeyError from Python 3.12 on
def test_whatever_is_wrong_the_copy_is_clean(tmp_path_factory, path, value):
    """Any value in any place of a document that holds every member."""
    fix(tmp_path_factory.mktemp("any"), replace_at(WHOLE, path, value))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(st.lists(st.tuples(*[st.integers(0, 6) | st.floats(0, 6)] * 2),
                                  min_size=1, max_size=7), min_size=1, max_size=3),
                min_size=1, max_size=3))  # fmt: skip
def test_any_rings_give_valid_polygons(tmp_path_factory, parts):
    folder = tmp_path_factory.mktemp("any")
    fix(folder, feature({"type": "MultiPolygon", "coordinates": parts}))
    for one in read_geojson(folder / "out.geojson"):
        assert one.geometry.is_valid
        assert one.geometry.area > 0


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 400), st.booleans())
def test_damaged_bytes(tmp_path_factory, junk, at, cut):
    text = json.dumps(WHOLE).encode()
    fix(tmp_path_factory.mktemp("any"), text[:at] + junk + (b"" if cut else text[at:]))


@pytest.mark.skipif(not DATA.is_dir(), reason="shared/data is not beside the checkout")
@pytest.mark.parametrize("name", ["dlup_qupath05.geojson", "histoqc_holed.geojson",
                                  "histoqc_geojson_example.json"])  # fmt: skip
def test_files_of_others(tmp_path, name):
    copy, repairs = fix_geojson(DATA / name, tmp_path / "out.geojson")
    assert lint_geojson(copy) == []
    before, after = read_geojson(DATA / name), read_geojson(copy)
    assert [one.geometry for one in after] == [one.geometry for one in before]
    assert {repair.rule for repair in repairs} <= {"id-uuid"}


def test_the_command_line(tmp_path):
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(collect(polygon(RING[:-1]), feature())))
    done = CliRunner().invoke(app, ["lint", str(path), "--fix"])
    assert done.exit_code == 0, done.output
    copy = tmp_path / "a.fixed.geojson"
    assert done.output.splitlines() == [
        f"{path}: fixed: feature 0: closed a ring [ring-open]", f"{copy}: clean",
    ]  # fmt: skip
    named = tmp_path / "b.geojson"
    assert CliRunner().invoke(app, ["lint", str(path), "--fix", "-o", str(named)]).exit_code == 0
    assert named.read_bytes() == copy.read_bytes()
    assert CliRunner().invoke(app, ["lint", str(path), "-o", str(named)]).exit_code == 2
    assert CliRunner().invoke(app, ["lint", str(path)]).exit_code == 1


def test_the_command_takes_folders_and_leaves_repaired_copies_out(tmp_path):
    for name in ("a.geojson", "a.fixed.geojson", "b.geojson"):
        (tmp_path / name).write_text(json.dumps(collect(feature())))
    done = CliRunner().invoke(app, ["lint", str(tmp_path)])
    assert done.output.splitlines() == [f"{tmp_path / n}.geojson: clean" for n in "ab"]
    (tmp_path / "empty").mkdir()
    assert CliRunner().invoke(app, ["lint", str(tmp_path / "empty")]).exit_code == 2
    assert CliRunner().invoke(app, ["lint", str(tmp_path), "--fix", "-o", "c"]).exit_code == 2


def test_a_repair_reads_as_a_line():
    assert str(Repair("json", "a thing", dropped=True)) == "dropped: a thing [json]"
