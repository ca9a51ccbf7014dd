"""How much memory a run took."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["measure_peak"]


def measure_peak() -> float | None:
    """The most MB that this process held in memory so far; None where nobody counts (Windows).

    Workers in other processes hold more.
    """
    # Linux's getrusage would count what the program that started this one held.
    with suppress(OSError):
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        if found := re.search(r"VmHWM:\s+(\d+) kB", status):
            return int(found[1]) * 1024 / 1e6
    with suppress(ImportError):
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6
    return None
