"""The page: what a click selects, what is undone where, and where the keyboard is."""

import json
import time

import pytest
from selenium.webdriver.support.select import Select

from tests.view.browser import READ, find_violations, inside
from tests.view.runs import kinds

DELETE, ESCAPE, DOWN = "\ue017", "\ue00c", "\ue015"
DOUBLE_S = 0.6
"""Clicks that are further apart are no double click."""


def draw(page, name, x, y, width=60, height=40):
    """Draw a rectangle on the screen, from a point of the frame."""
    count = page.text("#correction-count")
    page.press("r")
    page.choose("#draw-class", name)
    page.pointer(x, y).click_and_hold().move_by_offset(width, height).release().perform()
    page.wait(lambda: page.text("#correction-count") != count, "nothing is drawn")
    page.press(ESCAPE)


def click(page, x, y, dx=30, dy=20):
    time.sleep(DOUBLE_S)
    page.pointer(x, y).move_by_offset(dx, dy).click().perform()


def picked(page, *parts):
    def shows():
        text = page.text("#picked")
        return all(part in text for part in parts) and text

    return page.wait(shows, f"{parts} is not selected")


def names(path):
    features = json.loads(path.read_text())["features"]
    return [one["properties"]["classification"]["name"] for one in features]


def test_an_area_is_selected_before_the_region_below_it_changed_and_removed(own):
    page, path = own
    x, y = inside(1)
    draw(page, "Necrosis", x, y)
    draw(page, "Checked*", x, y, 90, 70)
    region = page.run("return document.querySelector('.pane').wsiseg.picked")
    assert region is None
    click(page, x, y)
    assert picked(page, "Drawn area", "Necrosis", "µm²").count("Drawn area") == 1
    assert page.find("#corrections [aria-current=true]").text.startswith("Drawn Necrosis")
    assert find_violations(page.driver) == []
    click(page, x, y)
    assert "New class" not in picked(page, "Checked area")
    click(page, x, y)
    picked(page, "Region", "Stroma", "Mean confidence")
    click(page, x, y)
    picked(page, "Drawn area")
    page.click("#picked .chips button:nth-child(1)")
    page.wait(lambda: names(path) == ["Tumor", "Checked*"], "no other class")
    picked(page, "Drawn area", "Tumor")
    page.press(DELETE)
    page.wait(lambda: kinds(path) == ["checked"], "the area stays, or more goes")
    page.wait(lambda: page.text("#notice").startswith("Removed: Drawn Tumor, "), "nothing is said")
    assert page.text("#notice").endswith("(Ctrl+Z undoes)")
    assert page.text("#picked") == ""
    for left in (["Checked*", "Tumor"], ["Checked*", "Necrosis"], ["Checked*"]):
        page.press_with_control("z")
        if left == ["Checked*"]:
            break
        page.wait(lambda left=left: names(path) == left, f"not {left}")
    page.wait(lambda: names(path) == ["Necrosis"], "the checked area stays")
    assert page.text("#notice") == ""


def test_a_double_click_selects_what_lies_on_top_only(own):
    page, _ = own
    x, y = inside(1)
    draw(page, "Necrosis", x, y)
    time.sleep(DOUBLE_S)
    page.pointer(x, y).move_by_offset(30, 20).double_click().perform()
    picked(page, "Drawn area")
    page.settle()
    assert "Drawn area" in page.text("#picked")


def test_a_row_of_the_list_selects_what_it_is_about(own):
    page, path = own
    draw(page, "Necrosis", *inside(1))
    page.pointer(*inside(0)).click().perform()
    picked(page, "Region", "Tumor")
    page.click("#picked .chips button:nth-child(2)")
    page.wait(lambda: kinds(path) == ["drawn", "reclassified"], "not reclassified")
    page.press(ESCAPE)
    page.wait(lambda: page.text("#picked") == "", "still selected")
    page.click("#corrections li:nth-child(2) .go")
    picked(page, "Region", "Tumor → Stroma")
    page.settle()
    page.click("#picked .chips button:nth-child(3)")
    page.wait(lambda: "Immune" in names(path)[1], "the region has no other class")
    page.click("#corrections li:nth-child(1) .go")
    picked(page, "Drawn area")
    page.settle()
    page.click("#picked .danger")
    page.wait(lambda: kinds(path) == ["reclassified"], "the area stays")


def test_a_deleted_region_is_said_with_its_area(own):
    page, path = own
    page.pointer(*inside(1)).click().perform()
    picked(page, "Region", "Stroma")
    page.press(DELETE)
    page.wait(lambda: page.text("#notice").startswith("Deleted Stroma, "), "nothing is said")
    assert page.text("#notice").endswith("m² (Ctrl+Z undoes)")
    assert page.find("#notice").get_attribute("role") == "status"
    page.press(DELETE)  # once more: there is nothing to do
    page.press_with_control("z")
    page.wait(lambda: kinds(path) == [], "not undone")
    page.wait(lambda: page.text("#notice") == "", "still said")


def test_drawn_areas_lie_over_changed_regions_as_they_count(own):
    page, path = own
    page.press(" ", "o")  # only corrections are seen
    x, y = inside(0)
    draw(page, "Necrosis", x, y, 30, 20)
    click(page, x, y, -15, -5)
    picked(page, "Region", "Tumor")
    page.click("#picked .chips button:nth-child(2)")
    page.wait(lambda: kinds(path) == ["drawn", "reclassified"], "not reclassified")
    page.settle()
    left, top = page.at(x, y)
    script = "return [...read(document.querySelector('canvas.vector'), ...arguments, 1, 1)]"
    red, green, *_ = page.run(READ + script, round(left) + 15, round(top) + 10)
    assert red == pytest.approx((0.6 * 50 + 0.24 * 150) / 0.84, abs=3)
    assert green == pytest.approx((0.6 * 50 + 0.24 * 200) / 0.84, abs=3)


@pytest.mark.parametrize("selector", ["#draw-class", "#sort"])
def test_the_keyboard_is_the_maps_once_something_was_chosen(page, selector):
    rectangle = "[data-tool=rectangle][aria-pressed=true]"
    Select(page.find(selector)).select_by_index(1)
    assert page.run("return document.activeElement.className") == "openseadragon-canvas"
    page.press("r")
    assert page.find(rectangle)
    page.press(ESCAPE)
    page.run("document.querySelector(arguments[0]).focus()", selector)
    before = page.find(selector).get_property("value")
    page.press(DOWN)
    page.wait(lambda: page.find(selector).get_property("value") != before, "arrows choose nothing")
    page.press("r")  # chooses by its first letter, if any
    assert page.driver.find_elements("css selector", rectangle) == []
    assert page.run("return document.activeElement.id") == selector[1:]
    page.press(ESCAPE, "r")
    assert page.find(rectangle)


def test_control_z_undoes_while_a_list_has_the_keyboard(own):
    page, path = own
    draw(page, "Necrosis", *inside(1))
    page.run("document.querySelector('#sort').focus()")
    page.press_with_control("z")
    page.wait(lambda: kinds(path) == [], "not undone")


@pytest.fixture
def two(own):
    """Two tabs of one slide, and functions that lead to each."""
    page, path = own
    first = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    second = page.driver.current_window_handle
    page.driver.get(page.address + "#slide=one")  # code is counted in the first tab only
    page.settle()

    def go(tab, look=True):
        page.driver.switch_to.window({1: first, 2: second}[tab])
        if look:  # a browser without a screen does not always say so
            page.run("window.dispatchEvent(new Event('focus'))")

    yield page, path, go
    page.driver.switch_to.window(second)
    said = page.log()
    page.driver.close()
    page.driver.switch_to.window(first)
    time.sleep(0.5)  # it looks for what others did: the server is still there
    page.settle()
    assert said == []


def listed(page):
    return [row.text.split("\n")[0] for row in page.driver.find_elements("css selector", ".go")]


def shows(page, *texts):
    def agrees():
        rows = listed(page)
        return len(rows) == len(texts) and all(map(str.startswith, rows, texts))

    page.wait(agrees, f"not {texts}")


def test_a_page_undoes_only_what_it_did_and_sees_what_others_did(two):
    page, path, go = two
    draw(page, "Necrosis", *inside(1))
    go(1)
    shows(page, "Drawn Necrosis")
    assert not page.find("#undo").is_enabled(), "of another page"
    draw(page, "Tumor", *inside(0))
    go(2)
    shows(page, "Drawn Necrosis", "Drawn Tumor")
    page.press_with_control("z")
    page.wait(lambda: names(path) == ["Tumor"], "not its own")
    shows(page, "Drawn Tumor")
    page.press_with_control("z")  # nothing is left
    go(1)
    shows(page, "Drawn Tumor")
    page.press_with_control("z")
    page.wait(lambda: names(path) == [], "not its own")


def test_a_change_shows_what_others_did_before_it(two):
    page, _, _ = two
    order = """
    const done = arguments[1];
    fetch(`api/slides/${document.querySelector('.pane').wsiseg.scene.id}/corrections`, {
      method: 'POST', headers: {'Content-Type': 'application/json'}, body: arguments[0],
    }).then((answer) => done(answer.status));
    """
    square = {"action": "draw", "class": "Stroma",
              "points": [[100, 100], [150, 100], [150, 150]]}  # fmt: skip
    assert page.driver.execute_async_script(order, json.dumps(square)) == 200
    draw(page, "Necrosis", *inside(1))
    shows(page, "Drawn Stroma", "Drawn Necrosis")


def test_what_another_page_changed_again_is_not_undone(two):
    page, path, go = two
    draw(page, "Necrosis", *inside(1))
    go(1)
    shows(page, "Drawn Necrosis")
    page.click(".go")
    picked(page, "Drawn area")
    page.click("#picked .chips button:nth-child(1)")
    page.wait(lambda: names(path) == ["Tumor"], "not changed")
    page.settle()
    go(2, look=False)
    page.press_with_control("z")
    page.wait(lambda: page.text("#notice").startswith("Not undone: "), "nothing is said")
    assert "was changed again, in another page" in page.text("#notice")
    assert names(path) == ["Tumor"]
    shows(page, "Drawn Tumor")
    assert not page.find("#undo").is_enabled()
    assert ["400" in line for line in page.log()] == [True]


def test_a_class_that_nothing_has_any_more_is_not_offered(own):
    page, path = own

    def name(text):
        page.choose("#draw-class", "")
        page.find("#new-class-name").send_keys(text)
        page.click("#new-class button[value=add]")

    def chosen():
        return page.find("#draw-class").get_property("value")

    x, y = inside(1)
    page.press("r")
    name("glas")
    page.pointer(x, y).click_and_hold().move_by_offset(60, 40).release().perform()
    page.wait(lambda: "Drawn glas" in page.text("#corrections"), "not drawn")
    for given in (" GL as", "tumor"):
        name(given)
        known = {" GL as": "glas", "tumor": "Tumor"}[given]
        page.wait(lambda known=known: chosen() == known, "another spelling")
    page.choose("#draw-class", "glas")
    page.press(ESCAPE)
    click(page, x, y)
    picked(page, "Drawn area", "glas")
    page.click("#picked .chips button:last-child")
    page.find("#new-class-name").send_keys("Glass\n")
    page.wait(lambda: names(path) == ["Glass"], "no other class")
    page.wait(lambda: chosen() == "Glass", "the mistyped one is chosen")
    options = "return [...document.querySelectorAll('#draw-class option')].map((e) => e.value)"
    assert "glas" not in page.run(options)
    page.press(DELETE)
    page.wait(lambda: kinds(path) == [], "not removed")
    assert chosen() == "Glass", "the next area is not silently of another class"
    page.choose("#draw-class", "Tumor")
    page.wait(lambda: "Glass" not in page.run(options), "still offered")


def test_an_answer_that_breaks_off_is_an_error_and_not_an_empty_one(page):
    script = """
    const done = arguments[0];
    const {fetch} = window;
    window.fetch = async () => new Response('{"lines": [');
    import('/static/js/api.js')
      .then(({readOutlines}) => readOutlines('a', [0, 0, 1, 1], 1))
      .then(() => done('taken'), (error) => done(error.name))
      .finally(() => { window.fetch = fetch; });
    """
    assert page.driver.execute_async_script(script) == "SyntaxError"


@pytest.mark.parametrize("key", ["\ue007", ESCAPE])  # Enter
def test_a_drawing_that_is_not_saved_stays_until_it_is_or_is_given_up(own, monkeypatch, key):
    page, path = own
    x, y = inside(1)

    def full(*names):
        raise OSError(28, "No space left on device", str(names[1]))

    with monkeypatch.context() as patch:
        patch.setattr("wsiseg.atomic.os.replace", full)
        page.choose("#draw-class", "Necrosis")
        page.press("r")
        page.pointer(x, y).click_and_hold().move_by_offset(60, 40).release().perform()
        page.wait(lambda: "Enter saves it again" in page.text("#notice"), "nothing is said")
    assert "No space left" in page.text("#notice")
    page.pointer(x, y).move_by_offset(90, 70).perform()  # no more of it
    draft = "return document.querySelector('.pane').wsiseg.draft"
    assert len(page.run(draft)) == 10
    assert ["409" in line for line in page.log()] == [True]
    page.press(key)
    page.wait(lambda: page.run(draft) is None, "it stays")
    page.settle()
    assert kinds(path) == ([] if key == ESCAPE else ["drawn"])
