"""Areas drawn on a raster: a pixel is in an area if its centre is."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from wsiseg.geometry import Box

__all__ = ["draw_area"]

_SIDE = 128


def draw_area(shape: Any, box: Box) -> NDArray[np.bool_]:
    """``(H, W)`` bool of a box of raster pixels: where their centres lie in `shape`."""
    out = np.zeros((box.height, box.width), bool)
    inside = shapely.intersection(shape, shapely.box(box.x, box.y, box.right, box.bottom))
    if inside.is_empty:
        return out
    left, top, right, bottom = (round(value) for value in inside.bounds)
    for y in range(max(top - 1, box.y), min(bottom + 1, box.bottom), _SIDE):
        for x in range(max(left - 1, box.x), min(right + 1, box.right), _SIDE):
            square = Box(x, y, min(_SIDE, box.right - x), min(_SIDE, box.bottom - y))
            at = square.slices(box)
            out[at] = _draw_square(inside, square)
    return out


def _draw_square(shape: Any, square: Box) -> NDArray[np.bool_] | bool:
    """Squares wholly within or without, which are most, need no look at their pixels."""
    frame = shapely.box(square.x, square.y, square.right, square.bottom)
    part = shapely.intersection(shape, frame)
    if part.area == 0:
        return False
    if part.area >= frame.area * (1 - 1e-12):
        return True
    x, y = np.meshgrid(np.arange(square.width) + 0.5, np.arange(square.height) + 0.5)
    shapely.prepare(part)
    return np.asarray(shapely.contains_xy(part, x + square.x, y + square.y))
