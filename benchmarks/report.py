"""The report of many slides in a browser: its size, and the time until it is usable.

    python benchmarks/report.py OUT [--slides 1000] [--rounds 5] [--pdf FILE]

OUT is a finished run of `wsiseg annotate`; its slides are repeated in a temporary folder, each with
its own pictures. Headless Chromium, which needs chromedriver, opens the page from files: `first
paint` is when something was drawn, `load` when the page and the visible pictures are loaded.
`--pdf` prints the report of OUT itself.
"""

from __future__ import annotations

import argparse
import base64
import csv
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.view.browser import open_browser  # needs the path above
from wsiseg.report import write_tables

Row = dict[str, Any]
_TIMES = """
const load = performance.getEntriesByType('navigation')[0];
const paint = performance.getEntriesByName('first-contentful-paint')[0];
return [paint ? paint.startTime : null, load.domContentLoadedEventEnd, load.loadEventEnd,
        performance.getEntriesByType('resource').length];
"""
_SEARCH = """
const start = performance.now(), search = document.getElementById('search');
search.value = arguments[0];
search.dispatchEvent(new Event('input'));
document.body.getBoundingClientRect();
return performance.now() - start;
"""


def main() -> None:
    """Make the run, open it, and print times."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--slides", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pdf", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        root = Path(folder)
        repeat_run(given.out, root, given.slides)
        page = root / "report.html"
        print(f"{given.slides:,} slides: {page.stat().st_size / 1e6:.2f} MB of report.html, "
              f"written in {time.process_time() - started:.1f} s of CPU")  # fmt: skip
        browser = open_browser()
        try:
            measure(browser, page, given.rounds)
            if given.pdf:
                browser.get((given.out / "report.html").resolve().as_uri())
                made = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
                given.pdf.write_bytes(base64.b64decode(made["data"]))
        finally:
            browser.quit()


def repeat_run(out: Path, root: Path, slides: int) -> None:
    """Write a report of `slides` slides to `root`: those of `out` in turn, renamed."""
    rows, measured = read_rows(out / "summary.csv"), read_rows(out / "measurements.csv")
    all_rows: list[Row] = []
    all_measured: list[Row] = []
    for number, row in enumerate(islice(cycle(rows), slides)):
        name = f"slide {number:05}"
        pictures = out / "report" / f"{row['slide']}.files"
        if pictures.is_dir():
            shutil.copytree(pictures, root / "report" / f"{name}.files")
        all_rows.append({**row, "slide": name})
        all_measured += [{**m, "slide": name} for m in measured if m["slide"] == row["slide"]]
    write_tables(root, all_rows, all_measured)


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a table."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def measure(browser: Any, page: Path, rounds: int) -> None:
    """Open the page several times; print medians."""
    times: list[list[float]] = []
    searches: list[float] = []
    for _ in range(rounds + 1):
        browser.get("about:blank")
        browser.get(page.as_uri())
        times.append(browser.execute_script(_TIMES))
        searches.append(browser.execute_script(_SEARCH, "slide 00001"))
    paint, ready, load, pictures = map(_median, zip(*times[1:], strict=True))
    print(f"first paint {paint:.0f} ms, usable {ready:.0f} ms, load {load:.0f} ms, "
          f"{pictures:.0f} files fetched, a search {median(searches[1:]):.0f} ms")  # fmt: skip


def _median(values: Iterable[float | None]) -> float:
    return median(value for value in values if value is not None)


if __name__ == "__main__":
    main()
