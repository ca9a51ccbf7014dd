"""Load compiled kernels only when there is enough work for them, and report their compilation.

Loading numba takes a second of CPU time, in which NumPy averages a small slide. Compiled kernels
are cached, so each is compiled once per machine.
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
_BREAK_EVEN = 2**26
"""Number of values that NumPy averages in half the time that numba takes to load."""


class _Work:
    """The work of this process so far."""

    values = 0
    """Number of values averaged."""
    loaded = False
    """Whether numba is completely loaded."""


def pays(values: int) -> bool:
    """Count `values` more; return whether compiled code pays off, as it does once it is loaded."""
    _Work.values += values
    return _Work.loaded or _Work.values > _BREAK_EVEN


_LOADING = threading.RLock()


@contextmanager
def loading() -> Iterator[None]:
    """Import heavy packages in the block, one thread at a time.

    When packages import each other, as those that numba and torch depend on do, a second thread
    may get one that is half loaded.
    """
    with _LOADING:
        yield
        if "numba" in sys.modules:
            _listen()
            _Work.loaded = True


class _Run:
    logged = False


_RUNS: list[_Run] = []


@contextmanager
def compiling_told() -> Iterator[None]:
    """Log once, if anything is compiled during the block, that this run takes longer than the next.

    Worker processes compile too, but log nothing.
    """
    run = _Run()
    _RUNS.append(run)
    try:
        with loading():  # numba may be loaded already; start listening
            pass
        yield
    finally:
        _RUNS.remove(run)


@cache
def _listen() -> None:
    """Have numba report when it begins to compile."""
    from numba.core import event

    class Listener(event.Listener):  # type: ignore[misc]  # numba ships no types
        def on_start(self, event: event.Event) -> None:
            for run in [run for run in _RUNS if not run.logged]:
                run.logged = True
                _LOG.info("Compiling for this machine, which takes up to a minute, once")

        def on_end(self, event: event.Event) -> None:
            pass

    event.register("numba:compile", Listener())
