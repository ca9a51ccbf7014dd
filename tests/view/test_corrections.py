import json
import threading
import uuid

import pytest
import shapely

from tests.export.stores import outline
from tests.view.runs import PALETTE, make_run
from wsiseg.errors import DataError, GeoJsonError
from wsiseg.qupath import fix_geojson, lint_geojson, read_geojson
from wsiseg.view.corrections import Corrections
from wsiseg.view.features import kind_of, make_area, make_feature, rename_area
from wsiseg.view.regions import read_regions

SQUARE = shapely.box(10, 10, 20, 20)


@pytest.fixture
def corrections(tmp_path):
    return Corrections(tmp_path / "corrections/a.geojson", {"slide": "a.svs", "origin": [0, 0]})


def drawn(name="Tumor", shape=SQUARE, identity=None):
    return make_feature("drawn", shape, name, PALETTE, identity)


def test_the_file_is_as_the_module_says_and_as_qupath_takes_it(tmp_path, corrections):
    make_run(tmp_path / "run")
    regions = read_regions([tmp_path / "run/geojson/one.geojson"])
    region = regions[0]
    shape = regions.geometry(0)
    corrections.put(make_feature("reclassified", shape, "Stroma", PALETTE, region.id, "Tumor"))
    corrections.put(make_feature("checked", SQUARE, "Checked*", PALETTE))
    corrections.put(drawn())
    other = regions[1]
    shape = regions.geometry(1)
    corrections.put(make_feature("deleted", shape, "Ignore*", PALETTE, other.id, other.class_name))
    assert lint_geojson(corrections.path) == []
    tree = json.loads(corrections.path.read_text())
    assert tree["type"] == "FeatureCollection"
    assert tree["wsiseg"]["slide"] == "a.svs"
    kinds = [one["properties"]["metadata"]["wsiseg"] for one in tree["features"]]
    assert kinds == ["reclassified", "checked", "drawn", "deleted"]
    first = tree["features"][0]
    assert first["id"] == region.id
    assert first["properties"]["classification"] == {"name": "Stroma", "color": [150, 200, 150]}
    assert first["properties"]["metadata"]["from"] == "Tumor"
    read = read_geojson(corrections.path)
    assert read[0].geometry.equals(regions.geometry(0))
    assert [one.class_name for one in read] == ["Stroma", "Checked*", "Tumor", "Ignore*"]


def test_a_change_replaces_what_has_its_id_and_can_be_taken_back(corrections):
    corrections.put(drawn("Tumor", identity="a"))
    corrections.put(drawn("Stroma", identity="a"))
    assert [one["properties"]["classification"]["name"] for one in corrections.features()] == [
        "Stroma"
    ]
    corrections.remove("a")
    assert corrections.features() == []
    again = Corrections(corrections.path)
    assert again.undoable == []
    for name in ("Stroma", "Tumor"):
        corrections.undo(corrections.undoable[-1])
        (one,) = corrections.features()
        assert one["properties"]["classification"]["name"] == name
    (first,) = corrections.undoable
    undone = corrections.undo(first)
    assert [(edit.feature, edit.after) for edit in undone.edits] == [("a", None)]
    assert corrections.features() == []
    with pytest.raises(DataError, match="this change cannot be undone any more"):
        corrections.undo(first)
    with pytest.raises(DataError, match="no correction has the id b"):
        corrections.remove("b")


def test_a_change_is_undone_alone_unless_its_feature_was_changed_again(corrections):
    first, second = corrections.put(drawn(identity="a")), corrections.put(drawn(identity="b"))
    corrections.undo(first.id)
    assert [one["id"] for one in corrections.features()] == ["b"]
    other = Corrections(corrections.path)
    renamed = other.update("b", lambda area: rename_area(area, "Stroma", PALETTE))
    before = corrections.path.read_bytes()
    with pytest.raises(DataError, match="was changed again, in another page or program"):
        corrections.undo(second.id)
    assert corrections.path.read_bytes() == before
    other.undo(renamed.id)
    corrections.undo(second.id)
    assert corrections.features() == []


def test_several_are_added_and_undone_at_once_and_none_twice(corrections):
    corrections.put(drawn("Stroma", identity="b"))
    added = corrections.add([drawn(identity=letter) for letter in "abc"])
    assert [edit.feature for edit in added.edits] == ["a", "c"], "what is there stays as it is"
    before = corrections.path.read_bytes()
    again = corrections.add([drawn(identity=letter) for letter in "abc"])
    assert again == ("", (), added.version, added.version)
    assert len(corrections.undoable) == 2, "nothing is there to undo"
    renamed = Corrections(corrections.path).update("c", lambda a: rename_area(a, "Stroma", PALETTE))
    with pytest.raises(DataError, match="was changed again"):
        corrections.undo(added.id)
    assert renamed.version == corrections.read().version, "neither half nor whole"
    corrections.path.write_bytes(before)
    corrections.undo(added.id)
    assert [one["id"] for one in corrections.features()] == ["b"]


def test_a_version_tells_what_others_changed(corrections):
    first = corrections.put(drawn(identity="a"))
    assert corrections.read().version == first.version != first.was
    other = Corrections(corrections.path).put(drawn(identity="b"))
    assert other.was == first.version
    last = corrections.put(drawn(identity="c"))
    assert last.was == other.version
    assert corrections.read().version == last.version


def test_a_drawn_area_gets_another_class_and_keeps_all_else(corrections):
    area = drawn(identity="a")
    area["properties"]["name"] = "mine"
    corrections.put(area)
    corrections.update("a", lambda area: rename_area(area, "Keratin", PALETTE))
    (renamed,) = corrections.features()
    assert renamed["properties"].pop("classification")["name"] == "Keratin"
    area["properties"].pop("classification")
    assert renamed == json.loads(json.dumps(area))
    checked = make_feature("checked", SQUARE, "Checked*", PALETTE)
    with pytest.raises(DataError, match="only a drawn area has a class"):
        rename_area(checked, "Tumor", PALETTE)


def test_what_somebody_else_wrote_is_kept_beside_and_inside(corrections):
    corrections.put(drawn(identity="a"))
    tree = json.loads(corrections.path.read_text())
    tree["features"].append({"type": "Feature", "id": "q", "geometry": None, "properties": {}})
    corrections.path.write_text(json.dumps(tree))
    edited = corrections.path.read_bytes()
    corrections.put(drawn(identity="b"))
    aside = corrections.path.with_name("a.geojson.old")
    assert aside.read_bytes() == edited
    assert [one["id"] for one in corrections.features()] == ["a", "q", "b"]
    corrections.put(drawn(identity="c"))
    assert len(list(aside.parent.glob("*.old*"))) == 1
    corrections.path.write_text("[]")
    corrections.put(drawn(identity="d"))
    assert aside.with_name("a.geojson.old2").read_text() == "[]"
    assert [kind_of(one) for one in corrections.features()] == ["drawn"]


def test_a_file_that_is_none_is_neither_read_nor_overwritten(corrections):
    corrections.path.parent.mkdir()
    for content, reason in ((b"not JSON", "is not JSON"), (b"\x1f\x8b half", "decompressed")):
        corrections.path.write_bytes(content)
        for change in (corrections.features, lambda: corrections.put(drawn())):
            with pytest.raises(GeoJsonError, match=rf"is not a FeatureCollection \(.*{reason}"):
                change()
        assert corrections.path.read_bytes() == content
    assert [one.name for one in corrections.path.parent.iterdir()] == ["a.geojson"]


def write_foreign(corrections, members):
    """Write a file as another program does: a class and measurements in `members`."""
    feature = json.loads(json.dumps(drawn(identity=str(uuid.uuid4()))))
    feature["properties"].pop("metadata")
    text = json.dumps(feature)[:-2] + f", {members}}}}}"
    corrections.path.parent.mkdir(exist_ok=True)
    corrections.path.write_text(f'{{"type": "FeatureCollection", "features": [{text}]}}')


def test_numbers_that_json_lacks_stay_as_qupath_writes_them(corrections):
    write_foreign(corrections, '"measurements": {"a": NaN, "b": -Infinity, "c": 1.5}')
    corrections.put(drawn())
    assert lint_geojson(corrections.path) == []
    first, _ = corrections.features()
    assert first["properties"]["measurements"] == {"a": "NaN", "b": "-Infinity", "c": 1.5}
    corrections.put(drawn())
    assert len(list(corrections.path.parent.glob("*.old*"))) == 1


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (r'"name": "\ud800"', "surrogates"),
        ('"measurements": {"a": NaN}, "name": 123456789012345678901234567890', "64-bit"),
        ('"name": NaN', "1 NaN or Infinity left out"),
        ('"a": ' + "[" * 300 + "]" * 300, "Recursion"),
    ],
)
def test_a_file_that_cannot_be_written_again_is_refused_and_stays(corrections, members, reason):
    write_foreign(corrections, members)
    before = corrections.path.read_bytes()
    for change in (corrections.features, lambda: corrections.put(drawn())):
        with pytest.raises(GeoJsonError, match=rf"cannot be .* again \(.*{reason}.*lint --fix"):
            change()
    assert corrections.path.read_bytes() == before
    assert [one.name for one in corrections.path.parent.iterdir()] == ["a.geojson"]
    fixed, _ = fix_geojson(corrections.path)
    fixed.replace(corrections.path)
    corrections.put(drawn())
    assert len(corrections.features()) == 2


def test_two_servers_lose_nothing_of_each_other(corrections):
    other = Corrections(corrections.path)

    def write(who, letter):
        for number in range(10):
            who.put(drawn(identity=f"{letter}{number}"))

    threads = [threading.Thread(target=write, args=pair) for pair in
               ((corrections, "a"), (other, "b"))]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(corrections.features()) == 20


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ("no", "a list of 3 to"),
        ([[0, 0], [1, 1]], "a list of 3 to"),
        ([[0, 0]] * 60_000, "a list of 3 to"),
        ([[0, 0], [1, 0], [1, "x"]], "a point is two numbers"),
        ([[0, 0], [1, 0], [1, float("nan")]], "a point is two numbers"),
        ([[0, 0], [1, 0], [1, 1e300]], "a point is two numbers"),
        ([[0, 0], [1, 0], [1, True]], "a point is two numbers"),
        ([[0, 0], [1, 0], [2, 0]], "enclose no area"),
        ([[200, 200], [300, 200], [300, 300]], "enclose no area on the slide"),
    ],
)
def test_areas_that_are_none_are_refused(points, message):
    with pytest.raises(DataError, match=message):
        make_area(points, (100, 100))


def test_areas_are_cut_at_the_slide_and_made_valid():
    assert make_area([[50, 50], [150, 50], [150, 150], [50, 150]], (100, 100)).area == 2500
    bow = make_area([[0, 0], [10, 10], [10, 0], [0, 10]], (100, 100))
    assert bow.is_valid
    assert bow.area == 50
    assert bow.geom_type == "MultiPolygon"


def test_the_map_itself_stays_as_it_is(tmp_path):
    store = make_run(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    Corrections(tmp_path / "corrections/one.geojson").put(drawn())
    assert {p: p.read_bytes() for p in before} == before
    assert len(outline(store).regions) > 5
