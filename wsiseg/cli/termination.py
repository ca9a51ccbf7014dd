"""SIGTERM, which batch systems and containers send, ends a command as Ctrl-C does."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import typer

__all__ = ["ends_at_sigterm"]

_EXIT_CODE = 128 + signal.SIGTERM


class _Terminated(KeyboardInterrupt):
    """SIGTERM came; whatever treats Ctrl-C treats it, too."""


@contextmanager
def ends_at_sigterm() -> Iterator[None]:
    """Raise `KeyboardInterrupt` in the block at SIGTERM, and exit with 143 when it has passed.

    A second SIGTERM is raised as well, so that it ends the wait for work under way. Does nothing
    where somebody else decides about the signal: in a thread, where it is ignored or handled, and
    under ``torchrun``, whose processes wait for each other where no handler runs.
    """
    if not _is_ours():
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except _Terminated:
        raise typer.Exit(_EXIT_CODE) from None
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _is_ours() -> bool:
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    in_main_thread = threading.current_thread() is threading.main_thread()
    return alone and in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def _terminate(number: int, frame: object) -> None:
    raise _Terminated(f"terminated by {signal.Signals(number).name}")
