"""The window of the block back ends: what every one of them sums over, and how keys are thinned.

A query block of 8 x 8 pixels attends to the pixels of the square of key blocks around it. `exact`
takes all of them; `fast` takes every second pixel of every second row, a different quarter in each
iteration, which leaves the mean over iterations unbiased.
"""

from __future__ import annotations

import math

__all__ = [
    "BLOCK",
    "MIN_PROBABILITY",
    "SMOOTH_REACH",
    "TRITON_CLASSES",
    "phase_of",
    "smooth_radius",
    "window_radius",
]

BLOCK = 8
"""Side of a query or key block in pixels."""

MIN_PROBABILITY = 1e-5
"""Probabilities are clipped to [this, 1] before the logarithm, as in the reference."""

SMOOTH_REACH = 4.0
"""Standard deviations after which the smoothness kernel is cut off."""

TRITON_CLASSES = 32
"""Most classes that the triton kernel holds in registers without spilling; torch takes more."""

_PHASES = ((0, 0), (1, 1), (0, 1), (1, 0))


def window_radius(sxy: float) -> int:
    """Key blocks on each side of the query block for a spatial standard deviation in pixels."""
    return math.ceil(2.4 * sxy / BLOCK)


def smooth_radius(sxy: float) -> int:
    """Pixels on each side that the smoothness kernel reaches."""
    return math.ceil(SMOOTH_REACH * sxy)


def phase_of(iteration: int) -> tuple[int, int]:
    """First row and column, 0 or 1, of the keys that `fast` takes in this iteration."""
    return _PHASES[iteration % len(_PHASES)]
