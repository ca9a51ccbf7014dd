"""Colours of the report: a palette for colour-blind readers, and a scale for scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wsiseg.annotations import UNSURE, UNSURE_COLOR

__all__ = ["SCALE", "choose_safe_colors", "scale_colors", "to_hex"]

# Okabe and Ito (2008), then those of Tol's "muted" (2021) that differ from them.
_SAFE = (
    (213, 94, 0), (86, 180, 233), (0, 114, 178), (240, 228, 66),
    (0, 158, 115), (230, 159, 0), (204, 121, 167), (0, 0, 0),
    (51, 34, 136), (136, 34, 85), (153, 153, 51), (136, 204, 238),
)  # fmt: skip

SCALE = ((0, 34, 78), (65, 77, 107), (124, 123, 120), (188, 175, 111), (254, 232, 56))
"""Evenly spaced stops of cividis (Nuñez, Anderton and Renslow 2018), which looks alike with any
colour vision: 0 is dark blue, 1 is yellow."""


def choose_safe_colors(names: Sequence[str]) -> tuple[tuple[int, int, int], ...]:
    """Choose an RGB for each class, safe for colour-blind readers; they repeat beyond twelve."""
    order = [name for name in dict.fromkeys(names) if name != UNSURE]
    chosen = {name: _SAFE[number % len(_SAFE)] for number, name in enumerate(order)}
    chosen[UNSURE] = UNSURE_COLOR
    return tuple(chosen[name] for name in names)


def scale_colors() -> NDArray[np.uint8]:
    """Return ``(256, 3)`` uint8 RGB of the scale, for values in 255ths."""
    stops = np.linspace(0, 255, len(SCALE))
    parts = [np.interp(np.arange(256), stops, channel) for channel in np.transpose(SCALE)]
    return np.stack(parts, axis=1).round().astype(np.uint8)


def to_hex(color: Sequence[int]) -> str:
    """Format an RGB colour as ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*color)
