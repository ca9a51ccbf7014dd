"""Ctrl-C is for the process that asked for the work, which then ends its workers.

A terminal sends the signal to all of its processes. A worker that heard it would print a traceback
and lose its block.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ignore_interrupts", "starting_without_interrupts"]


@contextmanager
def starting_without_interrupts() -> Iterator[None]:
    """Processes that are started in the block never hear Ctrl-C, from their first moment on.

    They inherit the blocked signal. Windows has no such thing: see `ignore_interrupts`.
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_interrupts() -> None:
    """Ignore Ctrl-C in this process from now on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
