import errno
import io
import json
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.view.conftest import HOST
from tests.view.runs import make_run, stitch_anew
from wsiseg.qupath import lint_geojson
from wsiseg.store import SlideStore
from wsiseg.view import library as library_module
from wsiseg.view import open_run
from wsiseg.view.app import build_app
from wsiseg.view.library import Library


@pytest.fixture
def own(tmp_path, labels):
    """A run that a test writes to, a client and the address of its slide."""
    make_run(tmp_path, labels=labels)
    with TestClient(build_app(Library([open_run(tmp_path)])), base_url=HOST) as client:
        (entry,) = client.get("/api/slides").json()["runs"][0]["slides"]
        yield tmp_path, client, f"/api/slides/{entry['id']}"


def tile(client, scene, kind, zoom, col, row, version=None):
    version = version or scene["layers"][kind.partition("-")[0]]
    return client.get(f"/tiles/{scene['id']}/{kind}/{version}/{zoom}/{col}/{row}")


def test_slides_are_listed_with_status_and_areas(client):
    (listed,) = client.get("/api/slides").json()["runs"]
    failed, one = listed["slides"]
    assert (failed["name"], failed["status"], failed["viewable"]) == ("<b>bad</b>", "failed", False)
    assert one["status"] == "done"
    assert one["class_mm2"]["Tumor"] > 0
    assert not one["corrected"]
    refused = client.get(f"/api/slides/{failed['id']}")
    assert refused.status_code == 409
    assert "cannot <i>be</i> read" in refused.json()["error"]


def test_a_slide_whose_tiling_has_not_ended_has_no_thumbnail_and_that_is_no_error(own):
    root, client, slide = own
    assert client.get(f"{slide}/thumbnail").headers["content-type"] == "image/jpeg"
    SlideStore(root / "slides" / "one.zarr").clear_marks("tile")
    client.get(slide)  # the page opens it: what is there is read anew
    answer = client.get(f"{slide}/thumbnail")
    assert (answer.status_code, answer.content) == (204, b"")


def test_tiles_bear_a_hash_and_may_be_kept_for_ever(client, slide, labels):
    scene = client.get(slide).json()
    answer = tile(client, scene, "labels", 0, 0, 0)
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    values = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert (values == np.where(labels == 255, 0, labels + 1)[:512, :512]).all()
    photo = tile(client, scene, "photo", 0, 1, 1)
    assert Image.open(io.BytesIO(photo.content)).size == (900 - 512, 700 - 512)
    assert tile(client, scene, "labels", 0, 0, 0, "00" * 8).status_code == 412
    assert tile(client, scene, "labels", 0, 7, 0).status_code == 404
    assert tile(client, scene, "score-1", 0, 0, 0, "00" * 8).status_code == 404


def test_a_tile_of_nothing_is_no_error(client, slide):
    scene = client.get(slide).json()
    assert tile(client, scene, "labels", -4, 0, 0).status_code == 204  # a margin of background


def test_a_stitched_map_anew_is_seen_and_old_addresses_end(own):
    root, client, slide = own
    scene = client.get(slide).json()
    from wsiseg.store import SlideStore

    stitch_anew(SlideStore(root / "slides/one.zarr"), "77" * 32)
    fresh = client.get(slide).json()
    assert fresh["layers"]["labels"] != scene["layers"]["labels"]
    assert tile(client, scene, "labels", 0, 0, 0).status_code == 412
    assert tile(client, fresh, "labels", 0, 0, 0).status_code == 200


def test_hover_says_class_area_confidence_and_id(client, slide, run, labels):
    features = json.loads((run / "geojson/one.geojson").read_text())["features"]
    y, x = np.argwhere(labels == 1)[500]
    said = client.get(f"{slide}/hover", params={"x": x + 0.5, "y": y + 0.5}).json()
    assert said["class"] == "Stroma"
    (region,) = [one for one in features if one["id"] == said["region"]["id"]]
    assert region["properties"]["measurements"]["Area mm^2"] == said["region"]["mm2"]
    assert region["properties"]["measurements"]["Mean confidence"] == said["region"]["confidence"]
    assert client.get(f"{slide}/hover?x=1&y=1").json() is None
    assert client.get(f"{slide}/hover?x=-1e8&y=1").json() is None


def test_outlines_and_regions_are_in_the_frame_of_the_tiles(client, slide, labels):
    said = client.get(f"{slide}/ranked?order=size&rank=0&class=Tumor").json()
    left, top, right, bottom = said["region"]["box"]
    inside = labels[round(top) : round(bottom), round(left) : round(right)]
    assert (inside == 0).any()
    region = client.get(f"{slide}/regions/{said['region']['index']}?tolerance=0").json()
    ring = np.array(region["rings"][0]).reshape(-1, 2)
    assert (ring.min(0).round() == [round(left), round(top)]).all()
    box = f"x0={left}&y0={top}&x1={right}&y1={bottom}"
    lines = client.get(f"{slide}/outlines?{box}&tolerance=0").json()
    assert not lines["over"]
    assert any(label == 0 and owner == region["index"] for owner, label, _ in lines["lines"])
    last = client.get(f"{slide}/ranked?order=size&rank=-1&class=Tumor").json()
    assert last["rank"] == last["count"] - 1
    assert client.get(f"{slide}/ranked?order=size&rank=0&class=None").json()["region"] is None


def post(client, slide, **order):
    return client.post(f"{slide}/corrections", json=order)


def undoable(client, slide):
    return client.get(f"{slide}/corrections").json()["undoable"]


def changed(answer):
    """The one correction that was changed, as it is now."""
    (edit,) = answer.json()["edits"]
    return edit["feature"]


def undo(client, slide):
    """Undo the last change that the server knows."""
    return changed(post(client, slide, action="undo", change=undoable(client, slide)[-1]))


def test_corrections_are_saved_at_once_and_undone(own):
    root, client, slide = own
    region = client.get(f"{slide}/ranked?order=size&rank=0&class=Tumor").json()["region"]
    order = {"action": "reclassify", "region": region["id"], "class": "Necrosis"}
    feature = changed(post(client, slide, **order))
    assert (feature["kind"], feature["class"], feature["from"]) == (
        "reclassified",
        "Necrosis",
        "Tumor",
    )
    assert feature["mm2"] == pytest.approx(region["mm2"])
    path = root / "corrections/one.geojson"
    assert lint_geojson(path) == []
    square = [[100, 100], [150, 100], [150, 150], [100, 150]]
    area = changed(post(client, slide, action="draw", points=square, **{"class": "Stroma"}))
    assert area["mm2"] == pytest.approx(2500 * 0.4**2 / 1e6)
    drawn = json.loads(path.read_text())["features"][1]
    x = [point[0] for point in drawn["geometry"]["coordinates"][0]]
    assert (min(x), max(x)) == (100 * 2 - 40, 150 * 2 - 40)  # 0.4 on 0.2 µm/px, bounds at 40
    post(client, slide, action="check", points=square)
    post(client, slide, action="delete", region=region["id"])
    kinds = {one["kind"] for one in client.get(f"{slide}/corrections").json()["features"]}
    assert kinds == {"deleted", "drawn", "checked"}
    assert undo(client, slide)["kind"] == "reclassified"
    order = {"action": "rename", "id": drawn["id"], "class": "Tumor"}
    renamed = changed(post(client, slide, **order))
    assert (renamed["kind"], renamed["class"]) == ("drawn", "Tumor")
    assert renamed["rings"] == area["rings"]
    assert undo(client, slide) == area
    assert changed(post(client, slide, action="remove", id=drawn["id"])) is None
    assert client.get("/api/slides").json()["runs"][0]["slides"][0]["corrected"]
    assert undo(client, slide)["kind"] == "drawn"
    for _ in range(3):
        undo(client, slide)
    assert undoable(client, slide) == []
    assert client.get(f"{slide}/corrections").json()["features"] == []


def test_each_new_class_has_a_colour_of_its_own_in_the_page_and_in_the_file(own):
    root, client, slide = own
    square = [[100, 100], [150, 100], [150, 150], [100, 150]]

    def draw(name):
        order = {"action": "draw", "class": name, "new": True, "points": square}
        return changed(post(client, slide, **order))

    first, second = draw("Keratin"), draw("Glass")
    assert draw("Keratin")["color"] == first["color"] != second["color"]
    scene = client.get(slide).json()["classes"]
    assert not {tuple(one["color"]) for one in scene} & {tuple(first["color"])}
    order = {"action": "rename", "id": first["id"], "new": True, "class": "Nerve"}
    renamed = changed(post(client, slide, **order))
    colors = {
        tuple(one["properties"]["classification"]["color"])
        for one in json.loads((root / "corrections/one.geojson").read_text())["features"]
    }
    said = {tuple(one["color"]) for one in (first, second, renamed)}
    assert colors == said
    assert len(said) == 3


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([], "no action"),
        ({"action": "burn"}, "no action is named 'burn'"),
        ({"action": []}, "no action is named '[]'"),
        ({"action": "reclassify", "region": "x", "class": "Tumor"}, "no region has that id"),
        ({"action": "draw", "class": "<b>", "points": []}, "no class is named"),
        ({"action": "draw", "class": " ", "new": True}, "a class needs a name of 1 to 60 letters"),
        ({"action": "draw", "class": "a\nb", "new": True}, "on one line"),
        ({"action": "draw", "class": ["a"], "new": True}, "a class needs a name"),
        ({"action": "draw", "class": "Ignore*", "new": True}, "has another meaning"),
        ({"action": "draw", "class": "Unsure", "new": True}, "has another meaning"),
        ({"action": "draw", "class": "tumour", "new": True}, "looks like 'Tumor'"),
        ({"action": "check", "points": {"a": 1}}, "an area needs a list"),
        ({"action": "remove", "id": "../../x"}, "no correction has the id"),
        ({"action": "rename", "id": "x", "class": "Tumor"}, "no correction has the id x"),
        ({"action": "rename", "id": "x", "class": "<b>"}, "no class is named"),
        ({"action": "undo"}, "this change cannot be undone any more"),
    ],
)
def test_orders_that_are_none_are_refused(client, slide, run, order, message):
    answer = client.post(f"{slide}/corrections", json=order)
    assert answer.status_code == 400
    assert message in answer.json()["error"]
    assert not (run / "corrections/one.geojson").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
def test_a_slide_whose_name_is_not_utf8_is_shown_and_corrected(tmp_path, labels):
    make_run(tmp_path, b"caf\xe9".decode("utf-8", "surrogateescape"), labels=labels)
    with TestClient(build_app(Library([open_run(tmp_path)])), base_url=HOST) as client:
        (entry,) = client.get("/api/slides").json()["runs"][0]["slides"]
        assert (entry["name"], entry["status"]) == ("caf\\udce9", "done")
        slide = f"/api/slides/{entry['id']}"
        assert client.get(slide).json()["name"] == "caf\\udce9"
        square = [[100, 100], [150, 100], [150, 150], [100, 150]]
        assert post(client, slide, action="check", points=square).status_code == 200
    (path,) = (tmp_path / "corrections").glob("*.geojson")
    assert lint_geojson(path) == []


def test_a_foreign_file_that_cannot_be_written_again_is_a_conflict(own):
    root, client, slide = own
    path = root / "corrections/one.geojson"
    path.parent.mkdir()
    path.write_text(r'[{"type": "Feature", "properties": {"name": "\ud800"}}]')
    square = [[100, 100], [150, 100], [150, 150], [100, 150]]
    for answer in (
        client.get(f"{slide}/corrections"), post(client, slide, action="check", points=square)
    ):  # fmt: skip
        assert answer.status_code == 409
        assert "one.geojson: cannot be written as JSON again" in answer.json()["error"]


@pytest.mark.parametrize(
    "damage",
    [
        {"geometry": {"type": "MultiPolygon", "coordinates": [[[[0, 0], [9, 0], [9, 9]]], []]}},
        {"geometry": {"type": "Polygon", "coordinates": []}},
        {"geometry": {"type": "Polygon", "coordinates": [[["a", 0], [9, 0], [9, 9]]]}},
        {"geometry": {"type": "Sphere"}},
        {"geometry": None},
        {"id": None, "geometry": 7},
    ],
)
def test_a_correction_that_another_program_damaged_is_counted_and_stays(own, damage):
    root, client, slide = own
    square = [[100, 100], [150, 100], [150, 150], [100, 150]]
    post(client, slide, action="check", points=square)
    path = root / "corrections/one.geojson"
    tree = json.loads(path.read_text())
    damaged = {**tree["features"][0], "id": str(uuid.uuid4()), **damage}
    path.write_text(json.dumps({**tree, "features": [*tree["features"], damaged]}))
    answer = client.get(f"{slide}/corrections")
    assert answer.status_code == 200
    assert (len(answer.json()["features"]), answer.json()["others"]) == (1, 1)
    assert post(client, slide, action="check", points=square).status_code == 200
    assert json.loads(path.read_text())["features"][1] == damaged


def test_a_correction_that_cannot_be_written_is_said_with_its_file(own, monkeypatch):
    root, client, slide = own
    square = [[100, 100], [150, 100], [150, 150], [100, 150]]
    path = root / "corrections/one.geojson"
    done = post(client, slide, action="check", points=square).json()["change"]
    before = path.read_bytes()

    def full(*names):
        raise OSError(errno.ENOSPC, "No space left on device", str(names[1]))

    monkeypatch.setattr("wsiseg.atomic.os.replace", full)
    for order in ({"action": "check", "points": square}, {"action": "undo", "change": done}):
        answer = client.post(f"{slide}/corrections", json=order)
        assert answer.status_code == 409
        said = answer.json()["error"]
        assert f"{path}: cannot be read or written: No space left on device" in said
        assert said.endswith("this correction is not saved: free disk space or grant access, "
                             "then make it again")  # fmt: skip
    assert path.read_bytes() == before
    monkeypatch.undo()
    assert undo(client, slide) is None
    assert undoable(client, slide) == []


def test_two_runs_are_listed_beside_each_other(run, tmp_path):
    make_run(tmp_path)
    library = Library([open_run(run), open_run(tmp_path)])
    with TestClient(build_app(library), base_url=HOST) as client:
        first, second = client.get("/api/slides").json()["runs"]
        assert second["slides"][0]["name"] == first["slides"][1]["name"] == "one"
        assert second["slides"][0]["id"] != first["slides"][1]["id"]


def test_slides_are_closed_when_others_are_looked_at(tmp_path):
    for name in "abcde":
        make_run(tmp_path, name)
    library = Library([open_run(tmp_path)])
    with TestClient(build_app(library), base_url=HOST) as client:
        for one in client.get("/api/slides").json()["runs"][0]["slides"]:
            assert client.get(f"/api/slides/{one['id']}/hover?x=1&y=1").status_code == 200
        assert len(library._open) == 3
    assert len(library._open) == 0


def test_a_slide_whose_regions_are_read_holds_up_no_other(tmp_path, monkeypatch):
    """What was kept of each slide had one lock for all."""
    asked, go_on, read = threading.Event(), threading.Event(), library_module.read_regions

    def slowly(paths):
        if paths[0].stem == "a":
            asked.set()
            assert go_on.wait(60)
        return read(paths)

    for name in "ab":
        make_run(tmp_path, name)
    monkeypatch.setattr(library_module, "read_regions", slowly)
    library = Library([open_run(tmp_path)])
    first, second = (entry.id for _, entries in library.list_entries() for entry in entries)
    with (
        library.borrow(first) as one,
        library.borrow(second) as other,
        ThreadPoolExecutor(3) as pool,
    ):
        early, late = (pool.submit(lambda: one.corrections) for _ in range(2))
        assert asked.wait(60)
        try:
            assert pool.submit(lambda: other.corrections).result(50) is other.corrections
        finally:
            go_on.set()
        assert early.result(60) is late.result(60) is one.corrections
    library.close()
