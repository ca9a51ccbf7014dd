"""How the page lies in its window: narrow windows, notices, the browser's history, two runs."""

import shlex

import pytest

from tests.view.browser import Page, find_violations, inside, serving
from tests.view.conftest import REACHED
from tests.view.runs import NAME, kinds, make_run

LONG = "TCGA-A1-A0SK-01Z-00-DX1.A44D70FA-4D96-43F4-9DD7-A61535786297"
HEIGHT = "return document.querySelector('.pane').clientHeight"


@pytest.fixture
def window(page):
    """A page whose window can be made narrow."""

    def resize(width, height=850):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        page.settle()

    yield page, resize
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize(("width", "height"), [(420, 850), (420, 600), (700, 850), (960, 700)])
def test_the_slide_has_most_of_a_narrow_window(window, width, height):
    page, resize = window
    resize(width, height)
    assert page.run(HEIGHT) >= height / 2
    assert page.run("return document.documentElement.scrollWidth") <= width


def test_in_a_narrow_window_lists_open_one_at_a_time(window):
    page, resize = window
    resize(420)
    slides, panel = ("#drawers button:nth-child(1)", "#drawers button:nth-child(2)")
    assert not page.find("#slide-list").is_displayed()
    assert not page.find("#legend").is_displayed()
    page.click(panel)
    assert page.find("#legend").is_displayed()
    page.settle()
    assert find_violations(page.driver) == []
    page.click(slides)
    assert not page.find("#legend").is_displayed()
    assert page.find(slides).get_attribute("aria-expanded") == "true"
    page.click("#slide-list button:not([aria-current]):enabled")
    page.wait(lambda: page.text("#slide-name") == NAME, "not opened")
    assert not page.find("#slide-list").is_displayed(), "the slide has the window again"
    page.click(slides)
    page.click(slides)
    assert not page.find("#slide-list").is_displayed()
    page.settle()


def test_a_notice_lies_over_the_picture_and_the_note_of_the_slide_stays(page):
    said = page.text("#note")
    assert "was moved" in said
    before, place = page.run(HEIGHT), page.place()
    page.press("f")
    page.wait(lambda: "no places here" in page.text("#notice"), "nothing is said")
    page.settle()
    assert page.run(HEIGHT) == before
    assert page.place() == place
    assert page.text("#note") == said
    assert "`" not in page.text("body"), "code is shown as code"
    assert find_violations(page.driver) == []
    page.click("#notice-close")
    assert not page.find("#notices").is_displayed()
    page.press("f", "]")
    page.wait(lambda: page.text("#notice") == "", "a notice of another slide stays")
    page.settle()


def test_back_and_forward_lead_through_the_slides_at_their_places(page):
    page.run("window.same = true")
    page.run("document.querySelector('.pane').wsiseg.goTo({x: 150, y: 120, um: 0.2}, true)")
    page.press("]")
    page.wait(lambda: page.text("#slide-name") == NAME, "no other slide")
    page.settle()
    page.press("+")
    page.settle()
    there = page.place()
    um = "return Number(new URLSearchParams(location.hash.slice(1)).get('um'))"
    page.wait(lambda: page.run(um) == pytest.approx(there["um"], rel=0.01), "not in the address")
    page.driver.back()
    page.wait(lambda: page.text("#slide-name") == "one", "not back")
    page.settle()
    assert page.place()["x"] == pytest.approx(150, abs=0.5)
    assert page.place()["um"] == pytest.approx(0.2, rel=0.01)
    page.driver.forward()
    page.wait(lambda: page.text("#slide-name") == NAME, "not forward")
    page.settle()
    assert page.place()["um"] == pytest.approx(there["um"], rel=0.01)
    assert page.run("return window.same"), "the page was loaded again"
    page.run("location.hash = 'slide=gone'")
    page.wait(lambda: "There is no map of gone here" in page.text("#notice"), "nothing is said")


def test_the_command_that_learns_is_there_once_something_is_corrected(own):
    page, path = own
    assert not page.find("#learn").is_displayed()
    page.press("r")
    page.pointer(*inside(1)).click_and_hold().move_by_offset(40, 30).release().perform()
    page.wait(lambda: kinds(path) == ["drawn"], "nothing is drawn")
    page.wait(lambda: page.find("#learn").is_displayed(), "nothing is offered")
    words = shlex.split(page.text("#learn code"))
    assert words[:2] == ["wsiseg", "learn"]
    assert words[3:5] == ["--labels", str(path.parent)]
    page.click("#undo")
    page.wait(lambda: kinds(path) == [], "not undone")
    page.settle()


def test_a_long_name_of_a_slide_is_not_cut(browser, tmp_path, request):
    make_run(tmp_path, LONG)
    with serving(tmp_path) as address:
        page = Page(browser, address)
        page.open()
        name = page.find("#slide-name")
        assert name.text == name.get_attribute("title") == LONG
        for side in ("Width", "Height"):
            shown, whole = (name.get_property(part + side) for part in ("client", "scroll"))
            assert whole <= shown
        assert page.log() == []
    REACHED.add(request.node.nodeid)


def test_beside_each_other_one_overview_and_facts_of_the_right_region(browser, roots, request):
    with serving(*roots) as address:
        page = Page(browser, address)
        page.open("#slide=one")
        assert page.text("#legend-run") == ""
        page.choose("#compare", "1")
        page.wait(lambda: page.place(1), "no second pane")
        page.settle()
        assert page.run("return document.querySelectorAll('.navigator').length") == 1
        assert page.text("#legend-run") == "Areas are those of first, on the left."
        page.pointer(*inside(1)).click().perform()
        page.wait(lambda: "Delete region" in page.text("#picked"), "nothing is picked")
        page.pointer(*inside(2, seed=3), pane=1).click().perform()
        page.wait(lambda: "of second" in page.text("#picked"), "no facts")
        assert "Immune cells" in page.text("#picked")
        assert page.run("return document.querySelectorAll('#picked button').length") == 0
        assert find_violations(page.driver) == []
        page.press("\ue017")  # Delete: of the left map nothing is selected any more
        page.press("\ue00c")
        page.wait(lambda: page.text("#picked") == "", "it stays")
        page.choose("#compare", "")
        page.wait(lambda: page.text("#legend-run") == "", "it stays")
        page.settle()
        assert kinds(roots[0] / "corrections/one.geojson") == []
        assert page.log() == []
    REACHED.add(request.node.nodeid)
