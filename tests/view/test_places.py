"""Suggested places as the server answers: where they are, and which are labelled."""

import json
import logging
from dataclasses import replace

import pytest
import shapely
from starlette.testclient import TestClient

from tests.view.conftest import HOST
from tests.view.runs import PALETTE, make_run, suggest
from wsiseg.errors import DataError
from wsiseg.places import PLACES, read_places, write_places
from wsiseg.store import SlideStore
from wsiseg.suggest import map_of
from wsiseg.view import open_run
from wsiseg.view.app import build_app
from wsiseg.view.corrections import Corrections
from wsiseg.view.features import make_feature
from wsiseg.view.library import Library
from wsiseg.view.places import Places, find_places

NAME = "Block 3, Ä/one two"
PLACE = (100, 80, 200, 160)  # in level-0 pixels from the bounds at (40, 30)


@pytest.fixture
def mine(tmp_path, labels):
    make_run(tmp_path / "out", NAME, labels=labels)
    return open_run(tmp_path / "out")


def find(mine, *places):
    return find_places(suggest(mine.path.parent / "suggest", *places), mine.entries())


def test_places_are_in_the_frame_of_the_tiles_and_listed_by_rank(mine):
    library = Library([mine])
    places = find(mine, (2, NAME, PLACE), (1, NAME, (300, 80, 400, 160)))
    with TestClient(build_app(library, places=places), base_url=HOST) as client:
        (run,) = client.get("/api/slides").json()["runs"]
        (entry,) = run["slides"]
        assert run["places"] == [
            {"rank": rank, "slide": entry["id"], "labelled": False} for rank in (1, 2)
        ]
        frames = client.get(f"/api/slides/{entry['id']}/places").json()["frames"]
        assert [one["rank"] for one in frames] == [1, 2]
        # 0.4 µm on 0.2 x 0.25 µm/px
        assert frames[1]["box"] == pytest.approx([70, 110 / 1.6, 120, 190 / 1.6])
        x0, y0, x1, y1 = frames[1]["box"]
        corners = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
        order = {"action": "draw", "class": "Stroma", "points": corners}
        assert client.post(f"/api/slides/{entry['id']}/corrections", json=order).is_success
        places = client.get("/api/slides").json()["runs"][0]["places"]
        assert [one["labelled"] for one in places] == [False, True]
    (drawn,) = Corrections(library.entries[0].corrections).features()
    assert shapely.geometry.shape(drawn["geometry"]).equals(shapely.box(*PLACE))


def test_without_suggestions_there_are_none(client, slide):
    assert client.get("/api/slides").json()["runs"][0]["places"] == []
    assert client.get(f"{slide}/places").json() == {"frames": []}


@pytest.mark.parametrize(
    ("kind", "name", "box", "labelled"),
    [
        ("drawn", "Tumor", (150, 100, 160, 110), True),
        ("reclassified", "Stroma", (0, 0, 500, 500), True),
        ("checked", "Checked*", (190, 150, 250, 250), True),
        ("drawn", "Tumor", (200, 80, 300, 160), False),  # the frame next to it
        ("drawn", "Tumor", (199.5, 80, 300, 160), False),
        ("deleted", "Ignore*", PLACE, False),
        ("", "Tumor", PLACE, False),  # of another program
    ],
)
def test_a_place_is_labelled_by_what_reaches_into_it(mine, kind, name, box, labelled):
    places = find(mine, (1, NAME, PLACE))
    (entry,) = mine.entries()
    feature = make_feature(kind, shapely.box(*box), name, PALETTE)
    corrections = Corrections(entry.corrections)
    change = corrections.put(feature)
    assert places.labelled(entry) == ({1} if labelled else set())
    corrections.undo(change.id)
    assert places.labelled(entry) == set()


def test_a_hole_in_a_drawn_area_labels_nothing(mine):
    places = find(mine, (1, NAME, PLACE))
    (entry,) = mine.entries()
    ring = shapely.box(0, 0, 500, 500).difference(shapely.box(50, 50, 250, 250))
    Corrections(entry.corrections).put(make_feature("drawn", ring, "Tumor", PALETTE))
    assert places.labelled(entry) == set()


def test_corrections_that_are_damaged_label_nothing(mine):
    places = find(mine, (1, NAME, PLACE))
    (entry,) = mine.entries()
    entry.corrections.parent.mkdir(parents=True)
    whole = make_feature("drawn", shapely.box(*PLACE), "A", PALETTE)
    half = {"type": "MultiPolygon", "coordinates": [whole["geometry"]["coordinates"], []]}
    damaged = [json.dumps([{**whole, "geometry": shape}]) for shape in (None, half)]
    for text in ("{", *damaged):
        entry.corrections.write_text(text)
        assert places.labelled(entry) == set()


def test_places_on_slides_that_are_not_shown_are_named(mine, caplog):
    with caplog.at_level(logging.WARNING):
        places = find(mine, (1, "gone, too", PLACE), (2, NAME, PLACE))
    assert "places on slides that are not shown are left out:\n  gone, too" in caplog.text
    (entry,) = mine.entries()
    assert [one.rank for one in places.on(entry)] == [2]
    with pytest.raises(DataError, match=r"no place is on a slide that is shown; .*\n  gone, too"):
        find(mine, (1, "gone, too", PLACE))
    assert Places().on(entry) == []


def test_places_of_another_map_are_told_once(mine, caplog):
    (entry,) = mine.entries()
    store = SlideStore(entry.store)
    for block in range(store.grid.n_blocks):
        store.mark_done("predict", block, "ab" * 32)
    folder = suggest(mine.path.parent / "suggest", (1, NAME, PLACE), (2, NAME, PLACE))

    def warned(of):
        places = [replace(place, map=of) for place in read_places(folder)]
        write_places(places, folder / PLACES)
        caplog.clear()
        find_places(folder, mine.entries())
        return caplog.text

    assert warned(map_of(store)) == warned("") == "", "tables of before do not tell"
    said = warned("0123")
    assert said.count(f"\n  {NAME}") == 1
    assert f"{folder}: the places were chosen on other maps than are shown" in said
    assert "wsiseg suggest" in said
    make_run(mine.path.parent / "second", NAME)
    both = [*mine.entries(), *open_run(mine.path.parent / "second").entries()]
    warned(map_of(store))
    find_places(folder, both)
    assert caplog.text == "", "one of two runs has the map"
