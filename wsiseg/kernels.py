"""How loops are compiled, the same everywhere; importing this loads numba."""

from __future__ import annotations

from functools import partial
from typing import Any

from numba import njit

__all__ = ["kernel"]

kernel: Any = partial(njit, nogil=True, cache=True)
"""Decorator: compile a function without the GIL, so that threads run it side by side, and keep it
on disk. Takes further options as numba's `njit` does. Sums are never reordered (no fastmath)."""
