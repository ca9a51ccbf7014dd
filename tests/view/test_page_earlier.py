"""The page with the corrections of an earlier run over the map that was made since."""

import json

import numpy as np
import pytest
import shapely

from tests.export.stores import make_labels
from tests.view.browser import READ, Page, find_violations, serving
from tests.view.conftest import REACHED
from tests.view.runs import PALETTE, kinds, make_run
from tests.view.test_page_corrections import click, names, picked
from wsiseg.view.corrections import Corrections
from wsiseg.view.features import make_feature

ESCAPE, DELETE = "\ue00c", "\ue017"
BOXES = {
    "drawn": (300, 250, 500, 420), "reclassified": (520, 280, 660, 400),
    "deleted": (700, 300, 850, 420), "checked": (260, 200, 900, 500),
}  # fmt: skip
"""Level-0 pixels from the bounds at (40, 30)."""


@pytest.fixture
def rounds(browser, tmp_path, request):
    """The page of a second run, of two slides, and the folders of both runs."""
    first, second = tmp_path / "out", tmp_path / "out2"
    make_run(first)
    for name in ("one", "two"):
        make_run(second, name, labels=make_labels(seed=3))
    box = {kind: shapely.box(*corners) for kind, corners in BOXES.items()}
    Corrections(first / "corrections/one.geojson", {"origin": [40, 30]}).add([
        make_feature("drawn", box["drawn"], "Keratin", PALETTE),
        make_feature("reclassified", box["reclassified"], "Stroma", PALETTE, "2r", "Tumor"),
        make_feature("deleted", box["deleted"], "Ignore*", PALETTE, "3d", "Necrosis"),
        make_feature("checked", box["checked"], "Checked*", PALETTE),
    ])  # fmt: skip
    before = (first / "corrections/one.geojson").read_bytes()
    with serving(second, earlier=first) as address:
        page = Page(browser, address)
        page.open("#slide=one")
        count(page, "4")
        yield page, second / "corrections/one.geojson"
        page.settle()
        assert page.log() == []
    assert (first / "corrections/one.geojson").read_bytes() == before
    REACHED.add(request.node.nodeid)


def count(page, text):
    page.wait(lambda: page.text("#earlier-count") == text, f"not {text}")


def middle(kind):
    """The middle of an earlier correction, in frame pixels of 0.4 µm on 0.2 x 0.25 µm."""
    x0, y0, x1, y1 = BOXES[kind]
    return ((x0 + x1) / 2 + 40) / 2, ((y0 + y1) / 2 + 30) / 1.6


def listed(page, where="#earlier-list"):
    return [row.text.split("\n")[0] for row in page.driver.find_elements("css selector",
            f"{where} .go")]  # fmt: skip


def edge(page, kind):
    """Colours ``(3, n, 4)`` of the vectors along the upper edge of an earlier correction."""
    x0, y0, x1, _ = BOXES[kind]
    (left, top), (right, _) = (page.at((x + 40) / 2, (y0 + 30) / 1.6) for x in (x0, x1))
    script = "return [...read(document.querySelector('canvas.vector'), ...arguments)]"
    data = page.run(READ + script, round(left), round(top) - 1, round(right - left), 3)
    return np.array(data).reshape(3, -1, 4)


def test_they_are_dashed_in_the_colour_of_their_class_and_hidden_by_a_key(rounds):
    page, _ = rounds
    assert page.text("#earlier-text") == "From out, as dashed lines."
    assert listed(page) == [
        "Drawn Keratin", "Tumor → Stroma", "Deleted Necrosis", "Checked area"
    ]  # fmt: skip
    page.press(" ", "o")  # nothing else is seen
    page.settle()
    color = page.run("return document.querySelector('.pane').wsiseg.earlier[0].color")
    line = edge(page, "drawn")
    own = (abs(line[..., :3] - 0.6 * np.array(color)).max(2) < 3).any(0).mean()
    assert 0.3 < own < 0.8, "neither solid nor missing"
    assert find_violations(page.driver) == []
    page.press("e")
    page.settle()
    assert page.pixels("vector")[0] == 0
    assert not page.find("#earlier-on").is_selected()
    page.pointer(*middle("drawn")).perform()
    page.settle()
    assert "earlier" not in page.text("#hover")
    page.wait(lambda: "earlier=0" in page.run("return location.hash"), "not in the address")
    page.click("#earlier-on")
    page.settle()
    assert page.pixels("vector")[0] > 100
    page.press("?")
    assert "corrections of the earlier map" in page.text("#keys")
    page.press(ESCAPE)


def test_one_says_its_class_under_the_pointer_and_selected_and_is_only_looked_at(rounds):
    page, path = rounds
    x, y = middle("drawn")
    page.pointer(x, y).perform()
    page.wait(lambda: "Keratin, drawn on the earlier map" in page.text("#hover"), "not said")
    assert "Checked on the earlier map" in page.text("#hover")
    click(page, x, y, 0, 0)
    picked(page, "Keratin, drawn on the earlier map", "Keep C")
    assert find_violations(page.driver) == []
    assert page.find("#earlier-list [aria-current=true]").text.startswith("Drawn Keratin")
    click(page, x, y, 0, 0)
    picked(page, "Region", "Mean confidence")
    click(page, x, y, 0, 0)
    picked(page, "Checked on the earlier map", "cannot be kept")
    page.press(DELETE)
    page.wait(lambda: "stays there as it is" in page.text("#notice"), "nothing is said")
    page.click("#earlier-list li:nth-child(3) .go")
    picked(page, "Not Necrosis, deleted on the earlier map", "cannot be kept")
    page.press("c")
    page.press("e")
    page.wait(lambda: page.text("#picked") == "", "what is hidden stays selected")
    page.settle()
    assert kinds(path) == []


def test_one_that_is_kept_becomes_a_correction_here_and_is_undone(rounds):
    page, path = rounds
    click(page, *middle("reclassified"), 0, 0)
    picked(page, "Stroma, changed from Tumor")
    page.press("c")
    page.wait(lambda: kinds(path) == ["drawn"], "not kept")
    count(page, "4, 1 kept")
    picked(page, "Drawn area", "Stroma")
    assert page.text("#notice").startswith("Kept here: Tumor → Stroma, ")
    assert listed(page, "#corrections") == ["Drawn Stroma"]
    assert listed(page) == ["Drawn Keratin", "Deleted Necrosis", "Checked area"]
    page.wait(lambda: page.text("#learn code").count("--labels") == 2, "one folder is missing")
    page.press_with_control("z")
    page.wait(lambda: kinds(path) == [], "not undone")
    count(page, "4")
    page.click("#earlier-list .take")
    page.wait(lambda: names(path) == ["Keratin"], "not kept from the list")
    page.open("#slide=one")
    count(page, "4, 1 kept")


def test_all_are_kept_and_undone_at_once_and_none_twice(rounds):
    page, path = rounds
    page.click("#earlier-list .take")
    count(page, "4, 1 kept")
    page.click("#earlier-all")
    page.wait(lambda: names(path) == ["Keratin", "Stroma"], "not all, or more")
    count(page, "4, 2 kept")
    assert not page.find("#earlier-all").is_displayed()
    page.press_with_control("z")
    page.wait(lambda: names(path) == ["Keratin"], "not undone")
    page.click("#earlier-all")
    page.wait(lambda: names(path) == ["Keratin", "Stroma"], "not kept again")
    ids = {one["id"] for one in json.loads(path.read_text())["features"]}
    assert len(ids) == 2


def test_a_slide_without_any_says_so_and_shows_none_of_another(rounds):
    page, _ = rounds
    page.press("]")
    page.wait(lambda: page.text("#earlier-text") == "out has no such slide.", "nothing is said")
    count(page, "0")
    assert listed(page) == []
    assert page.run("return document.querySelector('.pane').wsiseg.earlier.length") == 0
    page.press("[")
    count(page, "4")


def test_without_an_earlier_run_there_is_nothing_of_it(page):
    assert not page.find("#earlier").is_displayed()
