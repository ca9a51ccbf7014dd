"""Answers about a map that was made again while a page shows the earlier one."""

import json

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.export.stores import make_labels
from tests.view.conftest import HOST
from tests.view.runs import kinds, make_run, stitch_anew
from wsiseg.qupath import lint_geojson
from wsiseg.store import SlideStore
from wsiseg.view import open_run
from wsiseg.view.app import build_app
from wsiseg.view.library import Library
from wsiseg.view.scene import Scene

SQUARE = [[100, 100], [150, 100], [150, 150], [100, 150]]


class Asker:
    """A page that shows the map of one version, and the store of that map."""

    def __init__(self, client, root):
        (entry,) = client.get("/api/slides").json()["runs"][0]["slides"]
        self.client, self.root = client, root
        self.slide = f"/api/slides/{entry['id']}"
        self.store = SlideStore(root / "slides/one.zarr")
        self.scene = client.get(self.slide).json()

    @property
    def headers(self):
        return {"if-match": f'"{self.scene["version"]}"'}

    def get(self, rest):
        return self.client.get(f"{self.slide}/{rest}", headers=self.headers)

    def post(self, **order):
        return self.client.post(f"{self.slide}/corrections", json=order, headers=self.headers)

    def tile(self):
        version = self.scene["layers"]["labels"]
        return self.client.get(f"/tiles/{self.scene['id']}/labels/{version}/0/0/0")

    def largest(self):
        ranked = f"{self.slide}/ranked?order=size&rank=0&class=Tumor"
        return self.client.get(ranked).json()["region"]


@pytest.fixture
def page(tmp_path, labels):
    make_run(tmp_path, labels=labels)
    with TestClient(build_app(Library([open_run(tmp_path)])), base_url=HOST) as client:
        yield Asker(client, tmp_path)


def make_again(page, digest="77"):
    stitch_anew(page.store, digest * 32)


READS = ("regions", "regions/0?tolerance=1", "ranked?order=size&rank=0", "hover?x=200&y=200",
         "outlines?x0=0&y0=0&x1=300&y1=300&tolerance=1", "corrections", "earlier")  # fmt: skip


@pytest.mark.parametrize("rest", READS)
def test_what_is_asked_of_an_earlier_map_is_refused(page, rest):
    assert page.get(rest).status_code == 200
    make_again(page)
    refused = page.get(rest)
    assert refused.status_code == 412
    assert "the map was made again" in refused.json()["error"]
    page.client.get(page.slide)  # somebody else opens it
    assert page.get(rest).status_code == 412
    assert page.client.get(f"{page.slide}/{rest}").status_code == 200, "who names none has the last"


def test_a_region_of_an_earlier_map_is_not_corrected_but_areas_are_saved(page):
    region, path = page.largest(), page.root / "corrections/one.geojson"
    make_again(page)
    about_the_map = (
        {"action": "delete"}, {"action": "reclassify", "class": "Necrosis"}, {"action": "check"}
    )  # fmt: skip
    for order in about_the_map:
        refused = page.post(region=region["id"], points=SQUARE, **order)
        assert refused.status_code == 412
        assert "the map was made again" in refused.json()["error"]
    assert kinds(path) == []
    drawn = page.post(action="draw", points=SQUARE, **{"class": "Stroma"})
    assert (drawn.status_code, drawn.json()["outdated"]) == (200, True)
    page.client.get(page.slide)
    assert page.post(action="check", points=SQUARE).status_code == 412
    other = page.post(action="draw", points=SQUARE, **{"class": "Of the earlier map"})
    assert other.json()["outdated"]
    assert kinds(path) == ["drawn", "drawn"]
    page.scene = page.client.get(page.slide).json()
    assert page.post(action="delete", region=page.largest()["id"]).json()["outdated"] is False


def test_a_tile_of_two_maps_is_neither_sent_nor_kept(page, monkeypatch):
    read = Scene.raster

    def while_it_is_made(scene, *place):
        pixels = read(scene, *place)
        page.store.begin("stitch", 0)
        make_again(page)
        return pixels

    with monkeypatch.context() as patch:
        patch.setattr(Scene, "raster", while_it_is_made)
        assert page.tile().status_code == 412
    make_again(page, "5e")  # as at first, with the same address
    assert page.client.get(page.slide).json()["layers"] == page.scene["layers"]
    monkeypatch.setattr(Scene, "raster", lambda *_: np.full((512, 512), 9, np.uint8))
    assert page.tile().status_code == 200
    assert b"\x89PNG" in page.tile().content
    make_again(page)
    assert page.tile().status_code == 412, "nor one that was kept"


def test_while_a_map_is_made_areas_may_be_drawn_and_the_photo_stays(page):
    photo = f"/tiles/{page.scene['id']}/photo/{page.scene['layers']['photo']}/0/0/0"
    page.store.plan("stitch", ["12" * 32] * page.store.grid.n_blocks)
    assert page.client.get(photo).status_code == 200
    assert page.tile().status_code == 412
    page.client.get(page.slide)
    assert page.tile().status_code == 412, "also once somebody else opened it"
    page.scene = page.client.get(page.slide).json()
    assert "labels" not in page.scene["layers"]
    assert page.client.get(photo).status_code == 200
    order = {"action": "draw", "class": "Stroma", "new": True, "points": SQUARE}
    assert page.post(**order).json()["outdated"] is False
    unmade = page.post(action="check", points=SQUARE)
    assert unmade.status_code == 400
    assert "there is no map that could be right" in unmade.json()["error"]
    (drawn,) = json.loads((page.root / "corrections/one.geojson").read_text())["features"]
    assert min(x for x, _ in drawn["geometry"]["coordinates"][0]) == 100 * 2 - 40


def test_a_checked_area_says_which_map_was_checked(page):
    path, made = page.root / "corrections/one.geojson", []
    for digest in ("5e", "77", "78"):
        make_again(page, digest)
        page.scene = page.client.get(page.slide).json()
        made.append(page.store.finished("stitch"))
        assert page.post(action="check", points=SQUARE).status_code == 200
    said = [one["properties"]["metadata"] for one in json.loads(path.read_text())["features"]]
    assert said == [{"wsiseg": "checked", "map": digest} for digest in made]
    assert len(set(made)) == 3
    assert lint_geojson(path) == []


def test_corrections_of_regions_that_the_map_has_no_more_are_told(page):
    names = ("Tumor", "Necrosis")
    for name in names:
        region = page.client.get(f"{page.slide}/ranked?order=size&rank=0&class={name}").json()
        page.post(action="delete", region=region["region"]["id"])
    page.post(action="check", points=SQUARE)
    said = page.get("corrections").json()["features"]
    assert [(one["earlier"], one["from"]) for one in said] == [
        (False, "Tumor"), (False, "Necrosis"), (False, None)
    ]  # fmt: skip
    make_run(page.root / "other", labels=make_labels(seed=5))
    for part in ("slides/one.zarr", "geojson/one.geojson"):
        (page.root / part).rename(page.root / f"{part}.old")
        (page.root / "other" / part).rename(page.root / part)
    make_again(page)
    page.scene = page.client.get(page.slide).json()
    said = page.get("corrections").json()["features"]
    assert [(one["earlier"], one["from"]) for one in said] == [
        (True, "Tumor"), (True, "Necrosis"), (False, None)
    ]  # fmt: skip


def test_the_table_of_a_run_is_read_again_with_its_list(page):
    def area():
        return page.client.get(page.slide).json()["classes"][0]["mm2"]

    before = area()
    path = page.root / "summary.csv"
    column = path.read_text().splitlines()[0].split(",").index("Tumor_mm2")
    head, row = (line.split(",") for line in path.read_text().splitlines())
    row[column] = "7.5"
    path.write_text(f"{','.join(head)}\n{','.join(row)}\n")
    page.client.get("/api/slides")
    assert (before, area()) != (7.5, 7.5)
    assert area() == 7.5
