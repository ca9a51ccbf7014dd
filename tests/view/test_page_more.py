"""What is rarer on the page: every key, drawing by hand, files that are damaged or missing."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.view.browser import Page, inside, serving
from tests.view.conftest import REACHED
from tests.view.runs import kinds, make_run
from wsiseg.view import answers

LEFT, UP, RIGHT, DOWN = "\ue012", "\ue013", "\ue014", "\ue015"


def test_arrows_move_and_brackets_lead_to_other_slides(page):
    page.open("#slide=one&x=150&y=120&um=0.3")
    for key, axis, sign in ((RIGHT, "x", 1), (LEFT, "x", -1), (DOWN, "y", 1), (UP, "y", -1)):
        before = page.place()[axis]
        page.press(key)
        page.settle()
        assert np.sign(page.place()[axis] - before) == sign
    for key in "][":
        before = page.text("#slide-name")
        page.press(key)
        page.wait(lambda before=before: page.text("#slide-name") != before, "no other slide")
        page.settle()
    assert page.text("#slide-name") == "one"


def test_digits_switch_classes_and_k_goes_back(page):
    page.press("2")
    page.wait(lambda: page.text("#legend .off") == page.text("#legend li:nth-child(2)"), "not off")
    page.press("2")
    page.press("l")
    first = page.wait(lambda: "Area" in page.text("#picked") and page.text("#picked"), "none")
    page.settle()
    page.press("k")
    page.wait(lambda: page.text("#picked") != first, "no other")
    page.settle()
    page.press("\ue00c")
    page.wait(lambda: page.text("#picked") == "", "still picked")


def test_slides_are_sorted_by_a_class_and_the_failed_come_first(page):
    names = "return [...document.querySelectorAll('.name')].map((e) => e.textContent)"
    page.choose("#sort", "status")
    page.wait(lambda: page.run(names)[0] == "bad", "not first")
    page.choose("#sort", "class:Tumor")
    page.wait(lambda: page.run(names)[-1] == "bad", "not last")
    page.choose("#sort", "tissue")
    page.wait(lambda: page.run(names)[-1] == "bad", "not last")


def test_scores_are_chosen_and_an_address_typed_anew_is_followed(page):
    page.run(
        "const e = document.getElementById('heat-kind');"
        "e.dispatchEvent(new Event('change', {bubbles: true}))"
    )
    page.wait(lambda: page.find("#heat-on").is_selected(), "not switched on")
    page.settle()
    page.run("location.hash = 'slide=one&um=0.5&x=100&y=100&heat=0'")
    page.wait(lambda: page.place()["um"] == pytest.approx(0.5, rel=0.01), "not followed")
    page.settle()
    assert not page.find("#heat-on").is_selected()


def test_a_snapshot_is_saved(page, tmp_path):
    allowed = {"behavior": "allow", "downloadPath": str(tmp_path)}
    page.driver.execute_cdp_cmd("Browser.setDownloadBehavior", allowed)
    page.press("s")
    saved = tmp_path / "one.png"
    page.wait(lambda: saved.is_file() and Image.open(saved).size[0] > 300, "nothing is saved")


def test_an_area_is_drawn_by_hand_and_closed_on_its_first_corner(own):
    page, path = own
    x, y = inside(1)
    page.press("p")
    chain = page.pointer(x, y).click_and_hold()
    for dx, dy in ((20, 0),) * 4 + ((0, 20),) * 3 + ((-20, 0),) * 4 + ((0, -15),) * 2:
        chain = chain.move_by_offset(dx, dy)
    chain.release().perform()
    page.wait(lambda: kinds(path) == ["drawn"], "nothing is drawn")
    points = json.loads(path.read_text())["features"][0]["geometry"]["coordinates"][0]
    assert len(points) > 8
    chain = page.pointer(x, y).click()
    for dx, dy in ((70, 0), (0, 50), (-70, 0), (0, -48)):
        chain = chain.move_by_offset(dx, dy).click()
    chain.perform()
    page.wait(lambda: kinds(path) == ["drawn", "drawn"], "not closed")
    page.pointer(x, y).click().perform()
    page.press("\ue00c")  # a polygon of one corner is dropped
    page.click("#corrections .go")
    page.settle()
    assert kinds(path) == ["drawn", "drawn"]


def test_what_is_not_saved_is_said(own):
    page, path = own
    path.parent.mkdir()
    path.write_text("{")
    page.press("r")
    page.pointer(*inside(1)).click_and_hold().move_by_offset(40, 40).release().perform()
    page.wait(lambda: "Not saved" in page.text("#notice"), "nothing is said")
    assert path.read_text() == "{"
    assert [line for line in page.log() if "corrections" not in line] == []


def test_features_of_others_are_counted_not_shown(own):
    page, path = own
    path.parent.mkdir()
    square = [[[0, 0], [9, 0], [9, 9], [0, 0]]]
    other = {
        "type": "Feature", "geometry": {"type": "Polygon", "coordinates": square},
        "properties": {"objectType": "annotation"},
    }  # fmt: skip
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [other]}))
    page.open("#slide=one")
    page.wait(lambda: "1 more features" in page.text("#notice"), "nothing is said")


def test_more_outlines_than_can_be_drawn_are_the_rasters(page, monkeypatch):
    monkeypatch.setattr(answers, "_BUDGET", 10)
    page.open("#slide=one&x=150&y=120&um=0.3")
    page.wait(lambda: "Too many outlines" in page.text("#state"), "nothing is said")
    page.settle()
    assert page.pixels("vector") == (0, 0)


def test_a_part_of_the_map_that_is_lost_is_told(browser, tmp_path, request):
    make_run(tmp_path)
    shutil.rmtree(tmp_path / "slides/one.zarr/labels/classes/0/c")
    with serving(tmp_path) as address:
        page = Page(browser, address)
        page.open("#slide=one&x=150&y=120&um=0.3")
        page.wait(
            lambda: "Something could not be shown: " in page.text("#state"), "nothing is said"
        )
        assert "wsiseg check" in page.text("#state")
        assert all("409" in line for line in page.log())
    REACHED.add(request.node.nodeid)


def test_the_run_beside_is_chosen_and_left(browser, roots, request):
    with serving(*roots) as address:
        page = Page(browser, address)
        page.open("#slide=one&x=100&y=100&um=0.5")
        page.choose("#compare", "1")
        page.wait(lambda: page.place(1) == pytest.approx(page.place(0), abs=0.5), "no second pane")
        assert page.place()["um"] == pytest.approx(0.5, rel=0.01), "a smaller pane zooms nothing"
        page.click("[data-tool=rectangle]")
        page.pointer(300, 300, 1).click_and_hold().move_by_offset(30, 30).release().perform()
        page.wait(lambda: "draw there" in page.text("#notice"), "nothing is said")
        page.press("\ue00c")
        page.choose("#compare", "")
        page.wait(lambda: page.run("return document.querySelectorAll('.pane').length") == 1, "two")
        page.settle()
        assert page.log() == []
    REACHED.add(request.node.nodeid)
