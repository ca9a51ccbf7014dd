"""What of the page's JavaScript was run in the browser, by file."""

import re
from collections import defaultdict
from pathlib import Path

import numpy as np

SCRIPTS = Path(__file__).parents[2] / "wsiseg/view/static/js"
_COMMENT = re.compile(r"/\*[\s\S]*?\*/|//\s[^\n]*|\s")


class Coverage:
    """Counts from the moment it is made; `take` before each page that is left."""

    def __init__(self, driver):
        self.driver = driver
        self._reached = defaultdict(lambda: np.zeros(0, bool))
        driver.execute_cdp_cmd("Profiler.enable", {})
        driver.execute_cdp_cmd(
            "Profiler.startPreciseCoverage", {"callCount": True, "detailed": True}
        )

    def take(self):
        found = self.driver.execute_cdp_cmd("Profiler.takePreciseCoverage", {})["result"]
        for script in found:
            name = script["url"].rpartition("/static/js/")[2]
            if not (SCRIPTS / name).is_file() or name == script["url"]:
                continue
            length = len((SCRIPTS / name).read_text(encoding="utf-8"))
            counts = np.zeros(length, bool)
            for function in script["functions"]:  # outer ones come before those within
                for part in function["ranges"]:
                    counts[part["startOffset"] : part["endOffset"]] = part["count"] > 0
            known = self._reached[name]
            self._reached[name] = counts | known if known.size else counts

    def shares(self):
        """Characters of code, comments aside, and how many were reached, by file."""
        found = {}
        for path in sorted(SCRIPTS.glob("*.js")):
            text = path.read_text(encoding="utf-8")
            code = np.ones(len(text), bool)
            for match in _COMMENT.finditer(text):
                code[match.start() : match.end()] = False
            reached = self._reached[path.name]
            reached = reached if reached.size else np.zeros(len(text), bool)
            found[path.name] = int(code.sum()), int((code & reached).sum())
        return found
