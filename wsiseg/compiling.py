"""Compiled kernels: loaded where there is work enough for them, and told of while they compile.

numba takes a second of the processor to load, in which NumPy averages a small slide. What it
compiles it keeps in its cache, once on a machine.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

__all__ = ["compiling_told", "loading", "pays"]

_LOG = logging.getLogger(__name__)
_LITTLE = 2**26
"""Values that NumPy averages in half the time that numba takes to load."""


class _Work:
    """What this process averaged so far."""

    values = 0
    loaded = False
    """Whether numba is there, and all of it."""


def pays(values: int) -> bool:
    """Whether compiled code pays for so many values more: it does once it is loaded."""
    _Work.values += values
    return _Work.loaded or _Work.values > _LITTLE


_LOADING = threading.RLock()


@contextmanager
def loading() -> Iterator[None]:
    """Import what is heavy, beside other work: one thread at a time.

    Of packages that import each other, as those under numba and torch do, a second thread may get
    one that is half loaded.
    """
    with _LOADING:
        yield
        if "numba" in sys.modules:
            _listen()
            _Work.loaded = True


class _Run:
    told = False


_RUNS: list[_Run] = []


@contextmanager
def compiling_told() -> Iterator[None]:
    """Log, once, that this run takes longer than the next, if it compiles anything here.

    Worker processes compile too, and say nothing.
    """
    run = _Run()
    _RUNS.append(run)
    try:
        with loading():  # nothing more: numba may be loaded already
            pass
        yield
    finally:
        _RUNS.remove(run)


@cache
def _listen() -> None:
    """Have numba say when it begins to compile."""
    from numba.core import event

    class Told(event.Listener):  # type: ignore[misc]  # numba ships no types
        def on_start(self, event: event.Event) -> None:
            for run in [run for run in _RUNS if not run.told]:
                run.told = True
                _LOG.info("Compiling for this machine, which takes up to a minute, once")

        def on_end(self, event: event.Event) -> None:
            pass

    event.register("numba:compile", Told())
