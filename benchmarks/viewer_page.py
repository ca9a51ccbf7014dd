"""Drive the viewer's page of a run in headless Chromium, with screenshots."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.view.browser import Page, open_browser, serving  # needs the path above

_FRAMES = """
const gaps = []; let last = performance.now(); window.gaps = gaps;
const step = (now) => { gaps.push(now - last); last = now; requestAnimationFrame(step); };
requestAnimationFrame(step);
"""


def drive(run: Path, pictures: Path) -> None:
    """Use the page of a run's first slide, finally side by side with itself; print the times."""
    pictures.mkdir(parents=True, exist_ok=True)
    (store,) = sorted((run / "slides").rglob("*.zarr"))[:1]
    name = store.relative_to(run / "slides").with_suffix("").as_posix()
    browser = open_browser()
    try:
        browser.set_window_size(1500, 950)
        with serving(run) as address:
            _look(_Shown(browser, address, pictures), name)
        with serving(run, store) as address:
            _look_at_two(_Shown(browser, address, pictures), name)
    finally:
        browser.quit()


class _Shown(Page):
    """A page with timing and screenshots."""

    def __init__(self, driver: Any, address: str, pictures: Path) -> None:
        super().__init__(driver, address)
        self.pictures = pictures

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one action, then take a screenshot."""
        started = time.perf_counter()
        yield
        self.settle()
        took = time.perf_counter() - started
        self.driver.save_screenshot(str(self.pictures / f"{name}.png"))
        log = self.log()
        print(f"{name:24} {took:6.1f} s  {self.text('#state')}  {log if log else ''}")


def _look(page: _Shown, name: str) -> None:
    with page.step("01 whole slide"):
        page.open(f"#slide={name}")
    with page.step("02 regions counted"):
        page.wait(lambda: _counted(page), "no count")
    with page.step("03 confidence"):
        page.press("h")
    if page.run("return document.querySelectorAll('#heat-kind option').length") > 1:
        with page.step("04 score of a class"):
            page.run(
                "const e = document.getElementById('heat-kind'); e.selectedIndex = 1;"
                "e.dispatchEvent(new Event('change'))"
            )
    page.press("h")
    with page.step("05 largest region"):
        page.press("n")
        page.wait(lambda: "Area" in page.text("#picked"), "nothing is picked")
    page.run(_FRAMES)
    with page.step("06 zoomed and moved"):
        page.press("+", "+")
        for dx, dy in ((-260, 120), (200, -160), (-150, 60)):
            _middle(page).click_and_hold().move_by_offset(dx, dy).release().perform()
    gaps = sorted(page.run("return window.gaps"))
    print(f"{'':24} {len(gaps)} frames, 95 % within {gaps[int(0.95 * len(gaps))]:.0f} ms")
    with page.step("07 hover"):
        _middle(page).perform()
        page.wait(lambda: "Confidence here" in page.text("#hover") or _nothing(page), "no hover")
    with page.step("08 reclassified"):
        page.press("n")
        page.wait(lambda: "Area" in page.text("#picked"), "nothing is picked")
        page.settle()
        page.click("#picked .chips button[aria-pressed=false]")
        page.wait(lambda: "→" in page.text("#corrections"), "not listed")
    with page.step("09 drawn"):
        page.press("p")
        chain = _middle(page).click()
        for dx, dy in ((140, 10), (40, 90), (-120, 60), (-90, -60)):
            chain = chain.move_by_offset(dx, dy).click()
        chain.perform()
        page.press("\ue007")
        page.wait(lambda: "Drawn" in page.text("#corrections"), "not drawn")
    place = page.run("return location.hash")
    with page.step("10 loaded again"):
        page.open(place)
        page.wait(lambda: "Drawn" in page.text("#corrections"), "lost")
    with page.step("11 undone"):
        while count := _rows(page):
            page.click("#undo")
            page.wait(lambda count=count: _rows(page) < count, "not undone")
    page.press("\ue00c")
    with page.step("12 phone"):
        page.driver.set_window_size(500, 900)
        page.open(f"#slide={name}")
    page.driver.set_window_size(1500, 950)


def _look_at_two(page: _Shown, name: str) -> None:
    with page.step("13 two runs"):
        page.open()
        page.open(f"#slide={name}&beside=1")
        page.wait(lambda: page.place(1), "no second pane")
    with page.step("14 two runs, near"):
        page.press("n")
        page.wait(lambda: "Area" in page.text("#picked"), "nothing is picked")
        page.settle()
        page.press("-", "-")
        page.settle()
    a, b = page.place(0), page.place(1)
    print(f"{'':24} apart by {abs(a['x'] - b['x']) + abs(a['y'] - b['y']):.3f} um")


def _rows(page: _Shown) -> int:
    return len(page.driver.find_elements("css selector", "#corrections .take"))


def _counted(page: _Shown) -> bool:
    return " regions" in page.run("return document.getElementById('side').textContent")


def _nothing(page: _Shown) -> bool:
    return not page.find("#hover").is_displayed()


def _middle(page: _Shown) -> Any:
    place, mpp = page.place(), page.run("return document.querySelector('.pane').wsiseg.scene.mpp")
    return page.pointer(place["x"] / mpp, place["y"] / mpp)
