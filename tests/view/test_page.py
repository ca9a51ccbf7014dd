"""The page in headless Chromium: what a person does with it, and that nothing complains."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from tests.view.browser import READ, Page, find_violations, inside, serving
from tests.view.runs import NAME, kinds

UM = 0.4  # µm of the frame's pixels


def test_slides_are_listed_searched_and_sorted(page):
    names = page.run("return [...document.querySelectorAll('.name')].map((e) => e.textContent)")
    assert sorted(names) == sorted([NAME, "bad", "one"])
    assert page.text(".why") == "cannot <b>be</b> read"
    assert page.run("return document.querySelectorAll('#slide-list img:not(.thumb)').length") == 0
    page.find("#search").send_keys("failed")
    assert page.text("#slide-count") == "1 of 3"
    page.find("#search").clear()
    page.find("#search").send_keys("on")
    assert (
        page.run("return document.querySelectorAll('#slide-list li').length") == 2
    )  # onerror, one
    bars = page.run("return document.querySelector('[aria-current] .bars').children.length")
    assert bars == 4


def test_a_name_with_html_is_text_everywhere(page):
    page.open(f"#slide={NAME.replace('=', '%3D')}")
    assert page.text("#slide-name") == NAME
    assert page.run("return document.querySelectorAll('main img').length") == 0


def test_zoom_by_wheel_keys_and_back(page):
    before = page.place()["um"]
    page.press("+")
    page.settle()
    assert page.place()["um"] == pytest.approx(before / 1.5, rel=0.01)
    assert "µm" in page.text(".scale")
    page.press("0")
    page.settle()
    assert page.place()["um"] == pytest.approx(before, rel=0.01)


def test_layers_are_switched_by_keys_and_classes_by_boxes(page):
    shown = page.pixels("raster")
    assert shown[0] > 10_000
    page.press(" ")
    page.wait(lambda: page.pixels("raster")[0] == 0, "the map goes")
    page.press(" ")
    page.wait(lambda: page.pixels("raster") == shown, "the map comes back as it was")
    page.click("#legend input")
    page.settle()
    fewer = page.pixels("raster")
    assert 0 < fewer[0] < shown[0]
    page.click("#legend input")
    page.press("h")
    page.settle()
    assert page.find("#heat-on").is_selected()
    assert page.pixels("raster")[1] != shown[1]


def test_the_threshold_hides_what_is_less_sure(page):
    before = page.pixels("raster")[0]
    page.run(
        "const e = document.getElementById('map-least'); e.value = 60;"
        "e.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    page.settle()
    assert 0 < page.pixels("raster")[0] < before


def test_hover_says_what_is_under_the_pointer(page):
    page.pointer(*inside(1)).perform()
    box = page.wait(lambda: "Region" in page.text("#hover") and page.text("#hover"), "no region")
    assert box.startswith("Stroma")
    assert "mm²" in box or "µm²" in box
    assert "mean confidence" in box


def test_labels_are_drawn_where_they_are_with_hard_edges(page):
    page.open("#slide=one&outlines=0&mapOpacity=1&x=160&y=140&um=0.05")
    script = """
    const data = read(document.querySelector('canvas.raster'));
    const seen = new Set();
    for (let i = 0; i < data.length; i += 4) seen.add(data.slice(i, i + 4).join());
    return [...seen];
    """
    palette = {"200,0,0,255", "150,200,150,255", "160,90,160,255", "50,50,50,255", "0,0,0,0"}
    seen = set(page.run(READ + script))
    assert len(seen) > 1
    assert seen <= palette  # nothing in between: no edge is blurred
    x, y = inside(2)
    page.open(f"#slide=one&outlines=0&mapOpacity=1&x={x * UM}&y={y * UM}&um=0.1")
    left, top = page.at(x, y)
    point = page.run(
        READ + "return [...read(document.querySelector('canvas.raster'), ...arguments, 1, 1)]",
        left, top,
    )  # fmt: skip
    assert point == [160, 90, 160, 255]


def test_an_address_leads_to_the_place_and_its_layers(page):
    page.open("#slide=one&x=150&y=120&um=0.5&heat=1&mapOpacity=0.20&hidden=Stroma&outlines=0")
    place = page.place()
    assert (place["x"], place["y"]) == pytest.approx((150, 120), abs=0.5)
    assert place["um"] == pytest.approx(0.5, rel=0.01)
    assert page.find("#heat-on").is_selected()
    assert not page.find("#outlines-on").is_selected()
    assert page.find("#map-opacity").get_attribute("value") == "20"
    off = page.run("return document.querySelector('#legend .off').textContent")
    assert "Stroma" in off
    page.press("+")
    page.settle()
    page.wait(lambda: "um=0.33" in page.run("return location.hash"), "the address follows")
    assert "hidden=Stroma" in page.run("return location.hash")


def test_outlines_are_lines_when_near_and_the_raster_when_far(page):
    page.open("#slide=one&x=150&y=120&um=0.3")
    page.wait(lambda: "regions in view" in page.text("#state"), "no lines")
    page.settle()
    lines = page.pixels("vector")[0]
    assert lines > 500
    page.press("o")
    page.wait(lambda: page.pixels("vector")[0] == 0, "lines go")


def test_regions_follow_each_other_by_size_and_by_confidence(page):
    page.press("n")
    first = page.wait(lambda: "Area" in page.text("#picked") and page.text("#picked"), "none")
    page.settle()
    page.press("n")
    second = page.wait(lambda: page.text("#picked") != first and page.text("#picked"), "no next")
    page.settle()
    page.press("b")
    page.wait(lambda: page.text("#picked") == first != second, "not back")
    page.press("l")
    page.wait(lambda: page.text("#picked") != first, "no other")
    page.settle()


def test_a_region_is_reclassified_deleted_undone_and_there_after_a_reload(own):
    page, path = own
    page.pointer(*inside(0)).click().perform()
    page.wait(lambda: "Tumor" in page.text("#picked"), "nothing is picked")
    page.click("#picked .chips button:nth-child(4)")
    page.wait(lambda: kinds(path) == ["reclassified"], "not saved")
    page.wait(lambda: "Tumor → Necrosis" in page.text("#corrections"), "not listed")
    page.open("#slide=one")
    page.wait(lambda: "Tumor → Necrosis" in page.text("#corrections"), "not there any more")
    page.pointer(*inside(0)).click().perform()
    page.wait(lambda: "Tumor → Necrosis" in page.text("#picked"), "nothing is picked")
    page.press("\ue017")  # Delete
    page.wait(lambda: kinds(path) == ["deleted"], "not deleted")
    for left in (["reclassified"], []):
        page.click("#undo")
        page.wait(lambda left=left: kinds(path) == left, "not undone")
    page.wait(lambda: not page.find("#undo").is_enabled(), "there is more to undo")


def test_areas_are_drawn_by_dragging_and_by_corners(own):
    page, path = own
    x, y = inside(1)
    page.press("r")
    page.choose("#draw-class", "Necrosis")
    page.pointer(x, y).click_and_hold().move_by_offset(60, 40).release().perform()
    page.wait(lambda: kinds(path) == ["drawn"], "no rectangle")
    (drawn,) = json.loads(path.read_text())["features"]
    assert drawn["properties"]["classification"]["name"] == "Necrosis"
    points = np.array(drawn["geometry"]["coordinates"][0], float)
    left, top = points.min(0)
    scale = page.run("return document.querySelector('.pane').wsiseg.view().scale")
    tolerance = 3 / scale  # whole pixels of the screen
    # 0.4 µm on a slide of 0.2 x 0.25 µm/px whose bounds begin at (40, 30)
    assert (left + 40) / 2 == pytest.approx(x, abs=tolerance)
    assert (top + 30) / 1.6 == pytest.approx(y, abs=tolerance)
    assert np.ptp(points[:, 0]) / 2 == pytest.approx(60 / scale, abs=tolerance)
    page.press("p")
    page.choose("#draw-class", "Checked*")
    corners = page.pointer(x, y).click()
    for dx, dy in ((80, 0), (0, 60), (-80, 0)):
        corners = corners.move_by_offset(dx, dy).click()
    corners.perform()
    page.press("\ue007")  # Enter
    page.wait(lambda: kinds(path) == ["drawn", "checked"], "no polygon")
    page.wait(lambda: "Checked area" in page.text("#corrections"), "not listed")
    page.press("\ue00c")  # Escape
    page.press_with_control("z")
    page.wait(lambda: kinds(path) == ["drawn"], "not undone by the keyboard")
    page.wait(lambda: "Checked" not in page.text("#corrections"), "still listed")
    page.click("#corrections .take")
    page.wait(lambda: kinds(path) == [], "not taken back")


def draw_new(page, name):
    """Name a new class, and draw a rectangle of it."""
    page.choose("#draw-class", "")
    page.find("#new-class-name").send_keys(name)
    page.click("#new-class button[value=add]")
    page.pointer(*inside(1)).click_and_hold().move_by_offset(60, 40).release().perform()


def test_a_new_class_is_named_drawn_and_given_to_a_region(own):
    page, path = own
    page.press("r")
    draw_new(page, " Keratin ")
    page.wait(lambda: "Drawn Keratin" in page.text("#corrections"), "not drawn")
    page.press("\ue00c")  # Escape
    page.pointer(*inside(0)).click().perform()
    page.wait(lambda: "Keratin" in page.text("#picked .chips"), "not offered for a region")
    page.click("#picked .chips button:last-child")
    page.find("#new-class-name").send_keys("Nerve\n")
    page.wait(lambda: "Tumor → Nerve" in page.text("#corrections"), "not reclassified")
    drawn = json.loads(path.read_text())["features"]
    names = [one["properties"]["classification"]["name"] for one in drawn]
    assert names == ["Keratin", "Nerve"]
    page.open("#slide=one")
    page.wait(lambda: "Nerve" in page.text("#draw-class"), "not offered after a reload")
    page.press("r")
    draw_new(page, "tumour")
    page.wait(lambda: "looks like 'Tumor'" in page.text("#notice"), "a misspelling is a class")
    assert "tumour" not in page.text("#draw-class")
    page.choose("#draw-class", "Nerve")
    page.choose("#draw-class", "")
    page.click("#new-class button[value='']")
    assert page.find("#draw-class").get_property("value") == "Nerve", "as it was"
    assert ["400" in line for line in page.log()] == [True]


def test_two_runs_move_as_one(browser, roots):
    with serving(*roots) as address:
        page = Page(browser, address)
        page.open()
        page.open("#slide=one&beside=1")
        page.wait(lambda: page.place(1), "no second pane")
        page.settle()
        page.wait(lambda: page.place(0) == pytest.approx(page.place(1), abs=0.5), "not together")
        for leader, follower in ((0, 1), (1, 0)):
            page.pointer(450, 350, leader).click_and_hold().move_by_offset(50, -30).perform()
            page.pointer(450, 350, leader).release().perform()
            page.press("+")
            page.settle()
            a, b = page.place(leader), page.place(follower)
            page.wait(
                lambda a=leader, b=follower: page.place(a) == pytest.approx(page.place(b), abs=0.5),
                f"{a} is not {b}",
            )
        assert [page.run(f"return document.querySelectorAll('.title')[{i}].textContent")
                for i in (0, 1)] == ["first", "second"]  # fmt: skip
        assert page.pixels("raster", 0) != page.pixels("raster", 1)
        page.press("0")
        page.settle()
        page.pointer(*inside(2, seed=3), pane=1).perform()
        page.wait(lambda: "Immune cells" in page.text("#hover"), "no hover on the right")
        assert page.log() == []


def test_a_snapshot_holds_photo_map_scale_and_legend(page):
    script = """
    const done = arguments[0];
    import('/static/js/snapshot.js').then(async ({paintSnapshot}) => {
      const pane = document.querySelector('.pane').wsiseg;
      const blob = await paintSnapshot([pane]);
      const reader = new FileReader();
      reader.onload = () => done([pane.view().height, reader.result.split(',')[1]]);
      reader.readAsDataURL(blob);
    });
    """
    height, data = page.driver.execute_async_script(script)
    import base64

    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
    foot = picture[int(height) :].reshape(-1, 3)
    for color in ((200, 0, 0), (150, 200, 150), (160, 90, 160), (50, 50, 50)):
        assert (foot == color).all(axis=1).any()
    assert picture[: int(height)].std() > 5


def test_what_the_server_refuses_is_said(page, roots):
    page.open("#slide=bad")
    page.wait(lambda: "There is no map of bad here" in page.text("#notice"), "nothing is said")


def test_keys_are_explained(page):
    page.press("?")
    assert "Next region by size" in page.text("#keys")
    page.click("#keys button")


def test_a_checker_of_accessibility_finds_nothing_serious(page):
    page.press("n")
    page.wait(lambda: "Area" in page.text("#picked"), "nothing is picked")
    page.settle()
    assert find_violations(page.driver) == []
