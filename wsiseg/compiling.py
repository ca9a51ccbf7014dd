"""Says that kernels are being compiled, once on a machine: numba keeps them in its cache."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from numba.core import event

__all__ = ["compiling_told"]

_LOG = logging.getLogger(__name__)


@contextmanager
def compiling_told() -> Iterator[None]:
    """Log, once, that this run takes longer than the next, if it compiles anything here.

    Worker processes compile too, and say nothing.
    """
    told = _Told()
    with event.install_listener("numba:compile", told):
        yield


class _Told(event.Listener):  # type: ignore[misc]  # numba ships no types
    told = False

    def on_start(self, event: event.Event) -> None:
        if not self.told:
            self.told = True
            _LOG.info("Compiling for this machine, which takes up to a minute, once")

    def on_end(self, event: event.Event) -> None:
        pass
