"""The consoles of commands; rich is loaded at the first use, so that ``--help`` is fast."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["stderr", "stdout"]


@cache
def stdout() -> Console:
    """Return the console for results."""
    from rich.console import Console

    return Console()


@cache
def stderr() -> Console:
    """Return the console for progress, warnings and errors."""
    from rich.console import Console

    return Console(stderr=True)
