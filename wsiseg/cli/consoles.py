"""Where commands print. The first line loads rich, so that ``--help`` starts without it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["stderr", "stdout"]


@cache
def stdout() -> Console:
    """The console of results."""
    from rich.console import Console

    return Console()


@cache
def stderr() -> Console:
    """The console of progress, warnings and errors."""
    from rich.console import Console

    return Console(stderr=True)
