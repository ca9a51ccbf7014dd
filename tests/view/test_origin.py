"""Maps, corrections and places whose files begin at different places of the slide."""

import json
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import shapely
from starlette.testclient import TestClient

from tests.export.stores import SLIDE, outline
from tests.view.conftest import HOST
from tests.view.runs import make_run, suggest
from wsiseg.labels import label_slides
from wsiseg.qupath import write_geojson
from wsiseg.view import open_run
from wsiseg.view.app import build_app
from wsiseg.view.features import move_plain
from wsiseg.view.library import Library
from wsiseg.view.places import find_places

CORNER = tuple(SLIDE["bounds"][:2])
BOX = (200, 208, 264, 272)
"""In the frame, which has 2 and 1.6 px of level 0 a pixel."""
RING = [[200, 208], [264, 208], [264, 272], [200, 272]]
AREA = shapely.box(400, 332.8, 528, 435.2)
"""The same in level-0 pixels."""


@pytest.fixture
def store(tmp_path):
    store = make_run(tmp_path)
    store.write_tissue(np.ones((11, 15), bool), 0.4 * 64, "0")
    return store


def export(store, origin):
    """Write its map from another origin, as `--origin` does."""
    path = store.path.parents[1] / "geojson/one.geojson"
    write_geojson(replace(outline(store), origin=origin), path)


class Page:
    """The page of a run, with suggested places if a folder of them is given."""

    def __init__(self, client):
        self.client = client
        (entry,) = client.get("/api/slides").json()["runs"][0]["slides"]
        self.slide = f"/api/slides/{entry['id']}"

    def get(self, what):
        answer = self.client.get(f"{self.slide}/{what}")
        assert answer.is_success, answer.text
        return answer.json()

    def post(self, **order):
        answer = self.client.post(f"{self.slide}/corrections", json=order)
        assert answer.is_success, answer.text
        return answer.json()

    def boxes(self):
        """The box of each correction in the frame, by its id."""
        shapes = {
            one["id"]: shapely.Polygon(np.reshape(one["rings"][0], (-1, 2)))
            for one in self.get("corrections")["features"]
        }
        return {identity: list(shape.bounds) for identity, shape in shapes.items()}


@contextmanager
def page_of(root, suggested=None):
    library = Library([open_run(root)])
    places = None if suggested is None else find_places(suggested, library.entries)
    with TestClient(build_app(library, places=places), base_url=HOST) as client:
        yield Page(client)


def read(root):
    """The origin that the corrections say, and their shapes in level-0 pixels, by id."""
    tree = json.loads((root / "corrections/one.geojson").read_text())
    origin = np.array(tree["wsiseg"]["origin"])
    return tuple(origin.tolist()), {
        one["id"]: shapely.transform(
            shapely.geometry.shape(one["geometry"]), lambda points: points + origin
        )
        for one in tree["features"]
    }


@pytest.mark.parametrize("origin", [CORNER, (0, 0)])
def test_what_is_drawn_on_a_map_of_any_origin_is_learned_where_it_was_drawn(
    tmp_path, store, origin
):
    export(store, origin)
    with page_of(tmp_path) as page:
        page.post(action="draw", points=RING, **{"class": "Tumor"})
        assert list(page.boxes().values()) == [list(BOX)]
    said, shapes = read(tmp_path)
    assert said == origin
    assert [shape.equals(AREA) for shape in shapes.values()] == [True]
    (slide,) = label_slides(tmp_path / "corrections", [tmp_path]).slides
    assert slide.layers.classes[0].bounds == pytest.approx(BOX)


@pytest.mark.parametrize("origin", [CORNER, (0, 0)])
def test_places_are_from_the_corner_of_the_bounds_whatever_the_map_is(tmp_path, store, origin):
    export(store, origin)
    in_qupath = np.subtract(AREA.bounds, CORNER * 2)
    beside = in_qupath + np.array([200, 0, 200, 0])
    folder = suggest(tmp_path / "suggest", (1, "one", in_qupath), (2, "one", beside))
    with page_of(tmp_path, folder) as page:
        frames = page.get("places")["frames"]
        assert frames[0]["box"] == pytest.approx(BOX)
        page.post(action="draw", points=RING, **{"class": "Tumor"})
        places = page.client.get("/api/slides").json()["runs"][0]["places"]
        assert [one["labelled"] for one in places] == [True, False]


@pytest.mark.parametrize(("first", "second"), [(CORNER, (0, 0)), ((0, 0), CORNER)])
def test_corrections_follow_a_map_that_was_written_again_from_another_origin(
    tmp_path, store, first, second
):
    export(store, first)
    with page_of(tmp_path) as page:
        page.post(action="draw", points=RING, **{"class": "Tumor"})
        region = page.get("ranked?rank=0&class=Tumor")["region"]["id"]
        page.post(action="reclassify", region=region, **{"class": "Stroma"})
        before, version = page.boxes(), page.get("corrections")["version"]
    _, shapes = read(tmp_path)
    content = (tmp_path / "corrections/one.geojson").read_bytes()
    export(store, second)
    with page_of(tmp_path) as page:
        assert page.boxes() == before
        assert (tmp_path / "corrections/one.geojson").read_bytes() == content, "only read"
        assert page.get("corrections")["version"] != version
        drawn = page.post(action="check", points=RING)
        said, moved = read(tmp_path)
        assert said == second
        assert len(moved) == 3
        assert all(shapely.equals_exact(moved[one], shapes[one]) for one in shapes)
        page.post(action="undo", change=drawn["change"])
        assert page.boxes() == before
    export(store, first)
    with page_of(tmp_path) as page:
        page.post(action="undo", change=page.post(action="check", points=RING)["change"])
    assert (tmp_path / "corrections/one.geojson").read_bytes() == content, "and back"
    assert not list(tmp_path.glob("corrections/*.old*")), "nobody else wrote it"


def test_a_file_of_qupath_is_from_the_corner_also_beside_a_map_that_is_not(tmp_path, store):
    with page_of(tmp_path) as page:
        page.post(action="draw", points=RING, **{"class": "Tumor"})
    path = tmp_path / "corrections/one.geojson"
    tree = json.loads(path.read_text())
    path.write_text(json.dumps({**tree, "wsiseg": {"size": [4000, 4000]}}))
    export(store, (0, 0))
    with page_of(tmp_path) as page:
        assert list(page.boxes().values()) == [list(BOX)]
        page.post(action="check", points=RING)
    assert read(tmp_path)[0] == (0, 0)
    assert all(shape.equals(AREA) for shape in read(tmp_path)[1].values())
    assert path.with_name("one.geojson.old").exists()


@pytest.mark.parametrize("name", ["corrections", "geojson"])
def test_an_origin_that_is_none_is_a_conflict_and_the_file_stays(tmp_path, store, name):
    path = tmp_path / name / "one.geojson"
    path.parent.mkdir(exist_ok=True)
    text = '{"type":"FeatureCollection","wsiseg":{"origin":"corner"},"features":[\n\n]}\n'
    path.write_text(text)
    with page_of(tmp_path) as page:
        order = {"action": "check", "points": RING}
        answer = page.client.post(f"{page.slide}/corrections", json=order)
    assert answer.status_code == 409
    assert answer.json()["error"].startswith(f"{path}: says that its origin is corner")
    assert path.read_text() == text


def test_every_coordinate_moves_and_nothing_else():
    ring = [[0, 0], [0.1, 7.25, 3], [10, 5]]
    plain = {"id": "a", "properties": {"x": [1, 2]}, "bbox": [1, 2]}
    features = [
        {**plain, "geometry": {"type": "MultiPolygon", "coordinates": [[ring], []]}},
        {
            **plain,
            "geometry": {
                "type": "GeometryCollection",
                "geometries": [{"type": "Point", "coordinates": [1, 2]}],
            },
            "nucleusGeometry": {"type": "Point", "coordinates": [1.5, 2]},
        },
        {**plain, "geometry": None},
        {**plain, "geometry": {"type": "Polygon", "coordinates": [["a", None]]}},
    ]
    moved = move_plain(features, (40.2, 30), (0, 0))
    assert moved[0]["geometry"]["coordinates"] == [
        [[[40.2, 30], [40.3, 37.25, 3], [50.2, 35]]], []
    ]  # fmt: skip
    assert moved[1]["geometry"]["geometries"] == [{"type": "Point", "coordinates": [41.2, 32]}]
    assert moved[1]["nucleusGeometry"]["coordinates"] == [41.7, 32]
    assert moved[2:] == features[2:]
    assert json.dumps(move_plain(moved, (0, 0), (40.2, 30))) == json.dumps(features)
