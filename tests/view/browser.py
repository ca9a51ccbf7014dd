"""Headless Chromium on a server of its own, for tests of the page."""

import shutil
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from tests.export.stores import make_labels
from wsiseg.view import open_run
from wsiseg.view.app import build_app
from wsiseg.view.earlier import open_earlier
from wsiseg.view.library import Library
from wsiseg.view.places import find_places
from wsiseg.view.serve import _listen, make_server

WAIT_S = 120
READ = """
const read = (canvas, x = 0, y = 0, width = canvas.width, height = canvas.height) => {
  const copy = new OffscreenCanvas(canvas.width, canvas.height);
  const context = copy.getContext('2d', {willReadFrequently: true});
  context.drawImage(canvas, 0, 0);
  return context.getImageData(x, y, width, height).data;
};
"""
"""Reads a canvas of the page from a copy, as the browser complains of reading the page's own."""


FRAMES = """
const done = arguments[0];
requestAnimationFrame(() => requestAnimationFrame(() => done()));
"""


def open_browser():
    """A driver of headless Chromium; the test is skipped where there is none."""
    from selenium import webdriver
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.chrome.service import Service

    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    browser = browser or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("needs Chromium and chromedriver on the PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu"):
        options.add_argument(f"--{argument}")
    options.add_argument("--window-size=1300,850")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        started = webdriver.Chrome(options=options, service=Service(driver))
    except WebDriverException as error:
        pytest.skip(f"Chromium does not start: {error.msg}")
    started.set_script_timeout(WAIT_S)
    return started


def find_violations(driver):
    """What axe holds to be a serious or critical fault of the page that is shown."""
    driver.execute_script((Path(__file__).parent / "axe/axe.min.js").read_text(encoding="utf-8"))
    script = """
    const done = arguments[0];
    axe.run().then(({violations}) => done(violations.map(
      ({id, impact, nodes}) => [id, impact, nodes.map((node) => node.html.slice(0, 200))])));
    """
    found = driver.execute_async_script(script)
    return [one for one in found if one[1] in ("serious", "critical")]


def inside(label, seed=0):
    """A point of the frame well within a region of that label."""
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(make_labels(seed=seed) == label)
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return x + 0.5, y + 0.5


@contextmanager
def serving(*paths, suggest=None, earlier=None):
    """The address of a server of these runs, with suggested places and an earlier run."""
    listener = _listen("127.0.0.1", 0)
    library = Library([open_run(path) for path in paths])
    places = None if suggest is None else find_places(suggest, library.entries)
    before = None if earlier is None else open_earlier(earlier, library.runs)
    server = make_server(build_app(library, places=places, earlier=before))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(WAIT_S)


class Page:
    """The page of the viewer, as somebody who looks at it and types has it."""

    def __init__(self, driver, address):
        self.driver, self.address, self.opened = driver, address, False

    def open(self, rest=""):
        if coverage := getattr(self.driver, "coverage", None):
            coverage.take()
        self.driver.get("about:blank")  # else only the part after # would change
        if not self.opened:
            self.log()  # what an earlier page said when its server had gone already
        self.opened = True
        self.driver.get(self.address + rest)
        self.settle()

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def wait(self, what, why):
        """Wait until `what` is true, and return it."""
        end = time.monotonic() + WAIT_S
        found = None
        while time.monotonic() < end:
            with suppress(Exception):
                found = what()
            if found:
                return found
            time.sleep(0.1)
        raise AssertionError(f"in vain: {why}; {self.log()}; {self.run('return location.href')}")

    def settle(self):
        """Wait until what is seen is all that was asked for, and rests."""
        last = None

        def rests():
            nonlocal last
            # What was just changed is drawn, and moves, with the next frame, which may come late.
            self.driver.execute_async_script(FRAMES)
            before, last = last, (self.place(), self.pixels("raster"))
            return before == last and self.run("return document.body.dataset.settled") == "true"

        self.wait(rests, "the page does not settle")

    def find(self, selector):
        from selenium.webdriver.common.by import By

        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector):
        return self.find(selector).text

    def click(self, selector):
        """Click once: a list may be drawn anew between finding a button and clicking it."""

        def clicked():
            element = self.find(selector)
            if not element.is_enabled():
                return False
            element.click()
            return True

        self.wait(clicked, f"{selector} cannot be clicked")

    def choose(self, selector, value):
        """Choose of a list; what is typed into one is lost where the machine is slow."""
        self.run(
            "const list = document.querySelector(arguments[0]); list.value = arguments[1];"
            "list.dispatchEvent(new Event('change', {bubbles: true}))",
            selector, value,
        )  # fmt: skip

    def press(self, *keys):
        from selenium.webdriver.common.action_chains import ActionChains

        chain = ActionChains(self.driver)
        for key in keys:
            chain.send_keys(key)
        chain.perform()

    def press_with_control(self, key):
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        chain = ActionChains(self.driver).key_down(Keys.CONTROL).send_keys(key)
        chain.key_up(Keys.CONTROL).perform()

    def at(self, x, y, pane=0):
        """A point of the frame on the screen, from the pane's corner."""
        script = """
        const view = document.querySelectorAll('.pane')[arguments[2]].wsiseg.view();
        return [view.x + arguments[0] * view.scale, view.y + arguments[1] * view.scale];
        """
        return self.run(script, x, y, pane)

    def pointer(self, x, y, pane=0):
        """A chain of actions that begins with the pointer at a point of the frame."""
        from selenium.webdriver.common.action_chains import ActionChains

        element = self.driver.find_elements("css selector", ".pane .osd")[pane]
        left, top = self.at(x, y, pane)
        size = element.size
        chain = ActionChains(self.driver, duration=50)
        return chain.move_to_element_with_offset(
            element, round(left - size["width"] / 2), round(top - size["height"] / 2)
        )

    def place(self, pane=0):
        script = "return document.querySelectorAll('.pane')[arguments[0]].wsiseg.place()"
        with suppress(Exception):
            return self.run(script, pane)

    def pixels(self, layer, pane=0):
        """Number of pixels of a layer that show something, and the sum of their colours."""
        script = """
        const data = read(document.querySelectorAll('.pane')[arguments[1]]
          .querySelector('canvas.' + arguments[0]));
        let [count, sum] = [0, 0];
        for (let i = 0; i < data.length; i += 4) {
          if (data[i + 3]) { count += 1; sum += data[i] + 3 * data[i + 1] + 7 * data[i + 2]; }
        }
        return [count, sum];
        """
        with suppress(Exception):
            return tuple(self.run(READ + script, layer, pane))

    def log(self):
        """What the browser's console says."""
        return [entry["message"] for entry in self.driver.get_log("browser")]
