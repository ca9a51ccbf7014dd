"""The page with suggested places: a person goes through them and labels them."""

import json

import numpy as np
import pytest
import shapely

from tests.view.browser import READ, Page, find_violations, serving
from tests.view.conftest import REACHED
from tests.view.runs import kinds, make_run, suggest
from wsiseg.view import library

OTHER = "Gewebe 3, Ä"
PLACES = {
    1: ("one", (100, 80, 300, 240)),
    2: (OTHER, (500, 400, 700, 560)),
    3: ("one", (700, 500, 900, 660)),
}
"""Slide and level-0 box by rank."""


@pytest.fixture
def walk(browser, tmp_path, request):
    """The page of two slides with three places, and the files of their corrections."""
    for name in ("one", OTHER):
        make_run(tmp_path / "out", name)
    folder = suggest(tmp_path / "suggest", *((rank, *place) for rank, place in PLACES.items()))
    with serving(tmp_path / "out", suggest=folder) as address:
        page = Page(browser, address)
        page.open("#slide=one")
        page.wait(lambda: page.text("#place-count") == "0 of 3 labelled", "no places")
        yield page, {name: tmp_path / f"out/corrections/{name}.geojson" for name in ("one", OTHER)}
        page.settle()  # nothing is asked of a server that has ended
        assert page.log() == []
    REACHED.add(request.node.nodeid)


def at(page, rank):
    """Wait until the page has come to a place, and its frame fills half of the view."""
    page.wait(lambda: page.text("#place-text").startswith(f"Place {rank}."), f"not at {rank}")
    page.settle()
    slide, (x0, y0, x1, y1) = PLACES[rank]
    assert page.text("#slide-name") == slide
    place = page.place()
    # 0.2 x 0.25 µm/px, bounds at (40, 30)
    assert place["x"] == pytest.approx(((x0 + x1) / 2 + 40) * 0.2, abs=0.5)
    assert place["y"] == pytest.approx(((y0 + y1) / 2 + 30) * 0.25, abs=0.5)
    width, height = page.run("return ((e) => [e.clientWidth, e.clientHeight])(arguments[0])",
                             page.find(".pane"))  # fmt: skip
    share = max((x1 - x0) * 0.2 / width, (y1 - y0) * 0.25 / height) / place["um"]
    assert share == pytest.approx(0.5, rel=0.02)


def labelled(page, count):
    page.wait(lambda: page.text("#place-count") == f"{count} of 3 labelled", f"not {count}")


def draw_in_first(page):
    """Draw a rectangle within the first frame."""
    x, y = page.run("return document.querySelector('.pane').wsiseg.frames[0].box")[:2]
    page.press("r")
    page.pointer(x + 20, y + 20).click_and_hold().move_by_offset(60, 40).release().perform()


def test_places_are_walked_labelled_by_a_digit_and_undone_where_they_were(walk):
    page, paths = walk
    page.press("2")  # as long as there is no place, a digit is for the map
    page.wait(lambda: page.text("#legend .off").startswith("Stroma"), "not switched off")
    page.press("2", "f")
    at(page, 1)
    assert find_violations(page.driver) == []
    page.press("2")
    labelled(page, 1)
    at(page, 2)
    (drawn,) = json.loads(paths["one"].read_text())["features"]
    assert drawn["properties"]["classification"]["name"] == "Stroma"
    assert drawn["properties"]["metadata"]["wsiseg"] == "drawn"
    area = shapely.geometry.shape(drawn["geometry"])
    assert area.bounds == pytest.approx(PLACES[1][1], abs=0.02)
    assert area.area == pytest.approx(200 * 160, rel=1e-3)
    page.click("#place-classes button:nth-child(4)")
    labelled(page, 2)
    at(page, 3)
    (drawn,) = json.loads(paths[OTHER].read_text())["features"]
    assert drawn["properties"]["classification"]["name"] == "Necrosis"
    for rank, slide in ((2, OTHER), (1, "one")):
        page.press_with_control("z")
        labelled(page, rank - 1)
        at(page, rank)
        assert kinds(paths[slide]) == []
    page.press("d")
    at(page, 3)
    page.press("f")
    at(page, 1)


def test_a_place_is_labelled_by_drawing_and_with_a_new_class(walk):
    page, paths = walk
    page.press("f")
    at(page, 1)
    draw_in_first(page)
    labelled(page, 1)
    at(page, 1)  # as more than one tissue may be drawn
    page.press("f")
    at(page, 2)
    page.click("#place-classes button:last-child")
    page.find("#new-class-name").send_keys("2nd class\n")  # what is typed is no key
    labelled(page, 2)
    at(page, 3)
    (drawn,) = json.loads(paths[OTHER].read_text())["features"]
    assert drawn["properties"]["classification"]["name"] == "2nd class"
    page.run("document.querySelector('#place-classes button:nth-child(5)').focus()")
    assert page.run("return document.activeElement.textContent") == "2nd class 5"
    page.press("\ue007")  # Enter
    labelled(page, 3)
    page.wait(lambda: "All places are labelled" in page.text("#place-text"), "not said")
    assert page.text("#places-learn code").startswith("wsiseg learn ")
    page.press("f")
    assert kinds(paths["one"]) == ["drawn", "drawn"]


def test_a_digit_too_many_after_the_last_place_hides_no_class(walk):
    page, paths = walk
    off = "return document.querySelectorAll('#legend .off').length"
    page.press("f")
    for rank in PLACES:
        at(page, rank)
        page.press("1")
        labelled(page, rank)
    page.wait(lambda: page.text("#notice") == "All places are labelled.", "not said")
    page.press("1", "2")
    page.settle()
    assert page.run(off) == 0
    page.press("\ue00c", "1")  # Escape: digits are the map's again
    page.wait(lambda: page.run(off) == 1, "not switched off")
    assert [len(kinds(path)) for path in paths.values()] == [2, 1]


def test_a_place_out_of_sight_is_shown_before_it_is_labelled_and_can_be_left(walk):
    page, paths = walk
    page.press("f")
    at(page, 1)
    page.run("document.querySelector('.pane').wsiseg.goTo({x: 330, y: 250, um: 0.1}, true)")
    page.settle()
    page.press("1")
    at(page, 1)
    assert "once more" in page.text("#notice")
    assert kinds(paths["one"]) == []
    page.press("\ue00c")  # Escape
    page.wait(lambda: not page.find("#place-classes").is_displayed(), "still there")
    page.press("f")
    at(page, 2)  # the walk goes on
    page.find("#search").send_keys("1")
    assert kinds(paths[OTHER]) == []


def test_what_is_not_saved_leaves_the_place_where_it_is(walk, monkeypatch):
    page, _ = walk

    def full(*names):
        raise OSError(28, "No space left on device", str(names[1]))

    page.press("f")
    at(page, 1)
    with monkeypatch.context() as patch:
        patch.setattr("wsiseg.atomic.os.replace", full)
        page.press("1")
        page.wait(lambda: "No space left" in page.text("#notice"), "nothing is said")
    said = page.text("#notice")
    assert said.startswith("Not saved: ")
    assert "one.geojson" in said
    assert "this correction is not saved" in said
    assert page.text("#place-text").startswith("Place 1.")
    assert page.text("#place-count") == "0 of 3 labelled"
    assert ["409" in line for line in page.log()] == [True]
    draw_in_first(page)
    labelled(page, 1)
    assert page.text("#notice") == ""


@pytest.fixture
def forgetful(monkeypatch):
    """A server that keeps one slide open only, and with it what can be undone."""
    monkeypatch.setattr(library, "_MAX_OPEN", 1)


def test_undo_says_what_the_server_has_forgotten_and_shows_where_it_is(forgetful, walk):
    page, paths = walk
    page.press("f")
    at(page, 1)
    page.press("1")
    at(page, 2)
    page.press_with_control("z")
    page.wait(lambda: "cannot be undone any more" in page.text("#notice"), "nothing is said")
    assert page.text("#slide-name") == "one"
    assert kinds(paths["one"]) == ["drawn"]
    assert not page.find("#undo").is_enabled()
    page.click("#corrections .take")
    labelled(page, 0)
    page.wait(lambda: page.text("#place-text").startswith("Place 1."), "not back")


def test_frames_are_dashed_lines_and_not_filled(walk):
    page, _ = walk
    page.press(" ", "f")
    at(page, 1)
    script = """
    const pane = document.querySelector('.pane').wsiseg;
    const view = pane.view(), ratio = devicePixelRatio;
    const {box: [x0, y0, x1, y1]} = pane.frames.find(({current}) => current);
    const column = (x) => [...read(pane.vectors, Math.round((view.x + x * view.scale) * ratio),
      Math.round((view.y + (0.7 * y0 + 0.3 * y1) * view.scale) * ratio), 1, 60)];
    return [column(x0), column((x0 + x1) / 2)];
    """
    line, middle = (np.array(one).reshape(-1, 4) for one in page.run(READ + script))
    assert (middle == 0).all()
    assert (line[:, 3] == 255).all()
    assert 0.2 < (line[:, 0] < 100).mean() < 0.8


def test_without_suggestions_the_section_is_not_there_and_the_key_says_why(page):
    assert not page.find("#places").is_displayed()
    page.press("f")
    page.wait(lambda: "wsiseg view --suggest" in page.text("#notice"), "nothing is said")
    page.press("?")
    assert "Next place to label" in page.text("#keys")
