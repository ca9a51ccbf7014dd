"""Peak memory of a run."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["measure_peak"]


def measure_peak() -> float | None:
    """Return the peak memory of this process and its workers in MB; None where it is not known.

    It is the sum of the peaks of the processes, shared pages counted in each. On Linux it includes
    the workers on this machine, elsewhere it is this process alone, and on Windows None.
    """
    # Linux's getrusage would include the program that started this one.
    if (peak := _read_peak("self")) is not None:
        return peak + sum(_read_peak(child) or 0.0 for child in _find_children("self"))
    with suppress(ImportError):
        import resource

        peak_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak_rss / 1e6 if sys.platform == "darwin" else peak_rss * 1024 / 1e6
    return None


def _read_peak(process: str) -> float | None:
    """Return the peak memory of one process in MB; None without /proc, or once it has ended."""
    with suppress(OSError):
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
        if match := re.search(r"VmHWM:\s+(\d+) kB", status):
            return int(match[1]) * 1024 / 1e6
    return None


def _find_children(process: str) -> list[str]:
    """Return the running child processes of a process, and their children."""
    children = []
    for threads in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in threads.read_text(encoding="ascii").split():
                children += [child, *_find_children(child)]
    return children
