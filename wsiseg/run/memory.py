"""How much memory a run took."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["measure_peak"]


def measure_peak() -> float | None:
    """The most MB that this process and its workers held so far; None where nobody counts.

    Each process's own peak is added up, shared pages counted in each. Workers are those of this
    machine, on Linux; elsewhere it is this process alone, and on Windows None.
    """
    # Linux's getrusage would count what the program that started this one held.
    if (peak := _read_peak("self")) is not None:
        return peak + sum(_read_peak(child) or 0.0 for child in _find_children("self"))
    with suppress(ImportError):
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6
    return None


def _read_peak(process: str) -> float | None:
    """The most MB that one process held; None where /proc does not say or it has ended."""
    with suppress(OSError):
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
        if found := re.search(r"VmHWM:\s+(\d+) kB", status):
            return int(found[1]) * 1024 / 1e6
    return None


def _find_children(process: str) -> list[str]:
    """The processes that one started and that still run, and theirs."""
    found = []
    for threads in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in threads.read_text(encoding="ascii").split():
                found += [child, *_find_children(child)]
    return found
