"""Corrections of an earlier run over the map that was made since, as the server has them."""

import json
import logging
import shlex

import numpy as np
import pytest
import shapely
from starlette.testclient import TestClient

from tests.export.stores import make_labels
from tests.view.conftest import HOST
from tests.view.runs import PALETTE, kinds, make_run
from wsiseg.annotations import KNOWN_COLORS
from wsiseg.errors import DataError, StoreError
from wsiseg.labels import label_slides
from wsiseg.qupath import lint_geojson
from wsiseg.view import open_run
from wsiseg.view.app import build_app
from wsiseg.view.corrections import Corrections
from wsiseg.view.earlier import open_earlier
from wsiseg.view.features import make_feature
from wsiseg.view.library import Library

AREA = shapely.box(200, 200, 300, 280)


class Asker:
    """The page of a run that was made after another."""

    def __init__(self, client, root):
        self.client, self.root = client, root
        (entry,) = client.get("/api/slides").json()["runs"][0]["slides"]
        self.slide = f"/api/slides/{entry['id']}"
        self.path = root / "out2/corrections/one.geojson"

    def earlier(self):
        return self.client.get(f"{self.slide}/earlier").json()

    def keep(self, *ids):
        return self.post(action="keep", ids=list(ids))

    def post(self, **order):
        return self.client.post(f"{self.slide}/corrections", json=order)


def correct(root, *features, facts=None):
    corrections = Corrections(root / "corrections/one.geojson", facts or {"origin": [40, 30]})
    corrections.add(features)
    return corrections.path


def drawn(name="Tumor", shape=AREA, identity="1d"):
    return make_feature("drawn", shape, name, PALETTE, identity)


@pytest.fixture
def rounds(tmp_path):
    """The page of the second of two runs, and the first one's corrections, one of each kind."""
    make_run(tmp_path / "out")
    store = make_run(tmp_path / "out2", labels=make_labels(seed=3))
    store.write_tissue(np.ones((175, 225), bool), 1.6, "00")
    box = AREA.buffer(20)
    correct(
        tmp_path / "out", drawn("Keratin"),
        make_feature("reclassified", box, "Stroma", PALETTE, "2r", "Tumor"),
        make_feature("deleted", box, "Ignore*", PALETTE, "3d", "Necrosis"),
        make_feature("checked", box, "Checked*", PALETTE, "4c"),
    )  # fmt: skip
    library = Library([open_run(tmp_path / "out2")])
    app = build_app(library, earlier=open_earlier(tmp_path / "out", library.runs))
    with TestClient(app, base_url=HOST) as client:
        yield Asker(client, tmp_path)


def test_they_are_told_in_the_frame_with_what_can_be_kept(rounds):
    said = rounds.earlier()
    assert (said["title"], said["note"]) == ("out", "")
    told = [(one["kind"], one["class"], one["from"]) for one in said["features"]]
    assert told == [
        ("drawn", "Keratin", None), ("reclassified", "Stroma", "Tumor"),
        ("deleted", "Ignore*", "Necrosis"), ("checked", "Checked*", None),
    ]  # fmt: skip
    assert [one["copy"] is not None for one in said["features"]] == [True, True, False, False]
    ring = said["features"][0]["rings"][0]
    # 0.4 µm on 0.2 x 0.25 µm/px, bounds at (40, 30)
    assert (min(ring[::2]), max(ring[::2])) == pytest.approx((240 / 2, 340 / 2))
    assert (min(ring[1::2]), max(ring[1::2])) == pytest.approx((230 / 1.6, 310 / 1.6), abs=0.1)


def test_what_is_kept_counts_in_this_run_once_and_the_other_stays_as_it_is(rounds):
    before = {p: p.read_bytes() for p in (rounds.root / "out").rglob("*") if p.is_file()}
    done = rounds.keep("1d", "2r").json()
    assert [one["feature"]["kind"] for one in done["edits"]] == ["drawn", "drawn"]
    copies = [one["copy"] for one in rounds.earlier()["features"]]
    assert [one["id"] for one in done["edits"]] == copies[:2]
    assert lint_geojson(rounds.path) == []
    features = json.loads(rounds.path.read_text())["features"]
    said = [one["properties"]["classification"] for one in features]
    first = Corrections(rounds.root / "out/corrections/one.geojson").features()[0]
    assert said[0] == first["properties"]["classification"]
    assert said[1] == {"name": "Stroma", "color": list(KNOWN_COLORS["Stroma"])}
    assert shapely.geometry.shape(features[0]["geometry"]).equals(AREA)
    text = rounds.path.read_bytes()
    again = rounds.keep("2r", "1d").json()
    assert (again["edits"], again["change"]) == ([], "")
    rounds.post(action="rename", id=copies[0], **{"class": "Tumor"})
    assert rounds.keep("1d").json()["edits"] == [], "a copy stays as a person made it"
    rounds.post(action="undo", change=rounds.client.get(f"{rounds.slide}/corrections").json()
                ["undoable"][-1])  # fmt: skip
    assert rounds.path.read_bytes() == text
    labelling = label_slides(rounds.path, [rounds.root / "out2"])
    assert labelling.classes == ("Keratin", "Stroma")
    both = label_slides([rounds.path, before_path(rounds)], [rounds.root / "out2"])
    windows = [len(one.slides[0].found.labels) for one in (labelling, both)]
    assert windows[0] == windows[1], "given both folders, nothing counts twice"
    rounds.post(action="undo", change=done["change"])
    assert kinds(rounds.path) == []
    assert {p: p.read_bytes() for p in before} == before
    assert {p for p in (rounds.root / "out").rglob("*") if p.is_file()} == set(before)


def before_path(rounds):
    """What was drawn in the first run, without what is said of its map."""
    path = rounds.root / "drawn/one.geojson"
    Corrections(path).add(Corrections(rounds.root / "out/corrections/one.geojson").features()[:1])
    return path


def test_of_a_changed_region_counts_what_was_not_drawn_over(rounds):
    (ring, hole) = rounds.earlier()["features"][1]["rings"]
    assert max(ring[::2]) > max(hole[::2]) == pytest.approx(340 / 2)
    rounds.keep("1d", "2r")
    keratin, stroma = (
        shapely.geometry.shape(one["geometry"])
        for one in json.loads(rounds.path.read_text())["features"]
    )
    assert keratin.intersection(stroma).area == 0
    over = make_feature("drawn", AREA.buffer(30), "Tumor", PALETTE)
    Corrections(rounds.root / "out/corrections/one.geojson").add([over])
    assert "2r" not in [one["id"] for one in rounds.earlier()["features"]], "nothing is left"


def test_a_file_that_was_copied_by_hand_is_not_doubled(rounds):
    rounds.path.parent.mkdir()
    rounds.path.write_bytes((rounds.root / "out/corrections/one.geojson").read_bytes())
    assert rounds.keep("1d").json()["edits"] == []


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (None, "give the ids"), ([], "give the ids"), ([1], "give the ids"), ("1d", "give the ids"),
        (["1d", "gone"], "that can be kept has the id gone"), (["3d"], "has the id 3d"),
        (["4c"], "has the id 4c"), (["../../x"], "has the id"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused_whole(rounds, ids, message):
    answer = rounds.post(action="keep", ids=ids)
    assert answer.status_code == 400
    assert message in answer.json()["error"]
    assert not rounds.path.exists()


def test_what_another_program_drew_is_kept_so_that_qupath_takes_it(rounds):
    single = drawn(shape=shapely.MultiPolygon([shapely.box(600, 600, 650, 650)]), identity="6m")
    point = drawn(shape=shapely.Point(600, 500), identity="7p")
    Corrections(rounds.root / "out/corrections/one.geojson").add([single, point])
    rounds.keep("6m", "7p")
    assert lint_geojson(rounds.path) == []
    shapes = [one["geometry"]["type"] for one in json.loads(rounds.path.read_text())["features"]]
    assert shapes == ["Polygon", "Point"]


def test_new_classes_keep_their_colours_unless_others_have_them(rounds):
    rounds.post(action="draw", new=True, points=[[1, 1], [9, 1], [9, 9]], **{"class": "Keratin"})
    Corrections(rounds.root / "out/corrections/one.geojson").add([drawn("Glass", identity="5g")])
    rounds.keep("1d", "5g")
    said = [one["properties"]["classification"]
            for one in json.loads(rounds.path.read_text())["features"]]  # fmt: skip
    assert said[0] == said[1] != said[2]


def test_a_file_of_another_origin_lies_where_it_was_drawn(rounds):
    path = rounds.root / "out/corrections/one.geojson"
    path.unlink()
    moved = shapely.transform(AREA, lambda points: points + np.array([40, 30]))
    broken = {**drawn(identity="b"), "geometry": {"type": "Polygon"}}
    correct(rounds.root / "out", drawn(shape=moved), broken, facts={"origin": [0, 0]})
    (one,) = rounds.earlier()["features"]
    assert min(one["rings"][0][::2]) == pytest.approx(240 / 2)
    rounds.keep("1d")
    (kept,) = json.loads(rounds.path.read_text())["features"]
    assert shapely.geometry.shape(kept["geometry"]).equals(AREA)
    tree = json.loads(path.read_text())
    del tree["wsiseg"]  # as QuPath writes it, from the bounds' corner
    path.write_text(json.dumps(tree))
    (one,) = rounds.earlier()["features"]
    assert min(one["rings"][0][::2]) == pytest.approx(280 / 2)


def test_why_a_slide_has_none_is_said_in_words(rounds):
    path = rounds.root / "out/corrections/one.geojson"
    path.write_text("{")
    answer = rounds.client.get(f"{rounds.slide}/earlier")
    assert answer.status_code == 409
    assert f"{path}: is not a FeatureCollection" in answer.json()["error"]
    path.unlink()
    assert rounds.earlier() == {
        "title": "out", "note": "has no corrections of this slide", "features": []
    }  # fmt: skip
    facts = rounds.root / "out/slides/one.zarr/zarr.json"
    facts.write_text(facts.read_text().replace('"bounds"', '"identity": "other", "bounds"'))
    assert rounds.earlier()["note"] == "has another slide of this name"


def test_one_that_is_damaged_is_told_and_the_others_are_shown(rounds):
    path = rounds.root / "out/corrections/one.geojson"
    tree = json.loads(path.read_text())
    whole = tree["features"][1]["geometry"]["coordinates"]
    tree["features"][1]["geometry"] = {"type": "MultiPolygon", "coordinates": [whole, []]}
    path.write_text(json.dumps(tree))
    answer = rounds.earlier()
    assert [one["id"] for one in answer["features"]] == ["1d", "3d", "4c"]
    assert answer["note"] == "has 1 that cannot be read"


def test_without_an_earlier_run_there_are_none(client, slide):
    assert client.get(f"{slide}/earlier").json()["title"] == ""
    assert client.get("/api/slides").json()["runs"][0]["learn"].count("--labels") == 1


def test_the_command_to_learn_has_both_folders(rounds, monkeypatch):
    monkeypatch.chdir(rounds.root)
    (run,) = rounds.client.get("/api/slides").json()["runs"]
    words = shlex.split(run["learn"])
    assert words[2:7] == ["out2", "--labels", "out/corrections", "--labels", "out2/corrections"]


def test_a_folder_that_is_no_earlier_run_of_these_slides_is_refused(tmp_path, caplog):
    make_run(tmp_path / "out")
    make_run(tmp_path / "other", "another")
    run, other = (open_run(tmp_path / name) for name in ("out", "other"))
    with pytest.raises(StoreError, match="contains no map; give the output folder"):
        open_earlier(tmp_path / "none", [run])
    with pytest.raises(DataError, match="is the output that is shown"):
        open_earlier(tmp_path / "out", [run])
    with pytest.raises(DataError, match="has no map of a slide that is shown"):
        open_earlier(tmp_path / "other", [run])
    with caplog.at_level(logging.WARNING):
        make_run(tmp_path / "other")
        open_earlier(tmp_path / "other", [run, other])
    assert "other: has no corrections of the slides that are shown" in caplog.text


def test_beside_the_earlier_run_itself_it_has_none(tmp_path):
    for name in ("out", "out2"):
        make_run(tmp_path / name)
    correct(tmp_path / "out", drawn())
    library = Library([open_run(tmp_path / name) for name in ("out2", "out")])
    app = build_app(library, earlier=open_earlier(tmp_path / "out", library.runs))
    with TestClient(app, base_url=HOST) as client:
        notes = [
            client.get(f"/api/slides/{run['slides'][0]['id']}/earlier").json()["note"]
            for run in client.get("/api/slides").json()["runs"]
        ]
    assert notes == ["", "is out itself"]
