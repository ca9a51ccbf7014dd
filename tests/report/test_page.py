"""The report's page in headless Chromium, from files, as a person opens it."""

from types import SimpleNamespace

import numpy as np
import pytest

from tests.view.browser import WAIT_S, find_violations, open_browser
from wsiseg.report import write_pictures, write_tables

from .stores import annotate, make_store
from .test_pictures import MADE
from .test_tables import FAILED, GOOD, MEASURED


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A browser, and the folder of a run of three slides."""
    root = tmp_path_factory.mktemp("run")
    labels = np.repeat(np.arange(4, dtype=np.uint8), 64)[None].repeat(256, 0)
    store = make_store(root / "s.zarr", np.full((256, 256, 3), 90, np.uint8), labels)
    write_pictures(store, root / "report" / "a" / "case 1.files", annotate(labels), MADE)
    other = [{**MEASURED[0], "slide": "b", "area_mm2": 3.0}]
    write_tables(root, [GOOD, {**GOOD, "slide": "b"}, FAILED], [*MEASURED, *other])
    browser = open_browser()
    yield SimpleNamespace(browser=browser, root=root)
    browser.quit()


def open_page(browser, path):
    """Open a file, and wait until the browser has all of it, however busy the machine is."""
    from selenium.webdriver.support.wait import WebDriverWait

    shown = "return document.readyState + ' ' + location.href"
    browser.get(path.as_uri())
    WebDriverWait(browser, WAIT_S).until(
        lambda browser: browser.execute_script(shown) == f"complete {path.as_uri()}"
    )


def list_shown(browser):
    return browser.execute_script(
        "return [...document.querySelectorAll('article:not([hidden])')].map(a => a.dataset.name)"
    )


def choose(browser, name, value):
    browser.execute_script(
        "const input = document.getElementById(arguments[0]); input.value = arguments[1];"
        "for (const kind of ['input', 'change']) input.dispatchEvent(new Event(kind))",
        name, value,
    )  # fmt: skip


def test_search_sort_and_filter(page):
    browser = page.browser
    open_page(browser, page.root / "report.html")
    assert list_shown(browser) == ["cut", "a/case 1", "b"]
    choose(browser, "sort", "0")
    assert list_shown(browser) == ["b", "a/case 1", "cut"]
    choose(browser, "search", "CASE svs")
    assert sorted(list_shown(browser)) == ["a/case 1", "b"]
    choose(browser, "show", "failed")
    assert list_shown(browser) == []
    choose(browser, "search", "")
    assert list_shown(browser) == ["cut"]
    assert browser.find_element("id", "count").text == "1 of 3 slides"
    assert browser.get_log("browser") == []


def test_safe_colours_hold_on_the_next_page(page):
    browser = page.browser
    color = (
        "return getComputedStyle(document.querySelector('.bar .k')).backgroundColor + ' ' +"
        "getComputedStyle(document.querySelector('.stack .safe')).display"
    )
    open_page(browser, page.root / "report.html")
    assert browser.execute_script(color) == "rgb(200, 0, 0) none"
    browser.find_element("id", "safe").click()
    assert browser.execute_script(color) == "rgb(213, 94, 0) block"
    open_page(browser, page.root / "report" / "a" / "case 1.html")
    assert browser.execute_script(color).startswith("rgb(213, 94, 0)")
    missing = "return [...document.images].filter(i => i.complete && !i.naturalWidth).length"
    assert browser.execute_script(missing) == 0
    assert browser.get_log("browser") == []


def test_a_phone_needs_no_sideways_scrolling(page):
    browser = page.browser
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for name in ("report.html", "report/a/case 1.html"):
        open_page(browser, page.root / name)
        assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_checker_of_accessibility_finds_nothing_serious(page):
    for name in ("report.html", "report/a/case 1.html"):
        open_page(page.browser, page.root / name)
        assert find_violations(page.browser) == []


def test_a_thousand_slides_are_a_few_megabytes_and_can_be_searched(page, tmp_path):
    classes = [f"class {n}" for n in range(8)]
    slides = [f"batch {n % 7}/slide {n:04}" for n in range(1000)]
    rows = [{**GOOD, "slide": name, "peak_mb": 1678.2} for name in slides]
    for row in rows[::50]:
        row |= {"status": "failed", "error": FAILED["error"]}
    measured = [{**MEASURED[0], "slide": name, "class": one} for name in slides for one in classes]
    write_tables(tmp_path, rows, measured)
    assert (tmp_path / "report.html").stat().st_size < 10_000_000
    open_page(page.browser, tmp_path / "report.html")
    assert len(list_shown(page.browser)) == 1000
    choose(page.browser, "search", "slide 0950")
    assert list_shown(page.browser) == [slides[950]]
