"""Rasterise areas: a pixel is in an area if its centre is."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from wsiseg.geometry import Box

__all__ = ["draw_area"]


def draw_area(shape: Any, box: Box) -> NDArray[np.bool_]:
    """Return ``(H, W)`` bool for a box of raster pixels: whether centres lie in a valid `shape`.

    Uses the even-odd rule along each row. A centre on a border of two areas belongs to one.
    """
    begin, end = _edges(shape)
    # An edge crosses the rows of centres from its upper end (included) to its lower one.
    upper, lower = np.minimum(begin[:, 1], end[:, 1]), np.maximum(begin[:, 1], end[:, 1])
    first = np.clip(np.ceil(upper - 0.5), box.y, box.bottom).astype(np.int64)
    count = np.clip(np.ceil(lower - 0.5), box.y, box.bottom).astype(np.int64) - first
    edge = np.repeat(np.arange(len(begin)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    (x, y), (dx, dy) = begin[edge].T, (end - begin)[edge].T
    column = np.ceil(x + dx * ((row + 0.5 - y) / dy) - 0.5)
    at = np.clip(column - box.x, 0, box.width).astype(np.int64)
    crossings = np.zeros((box.height, box.width + 1), np.int64)
    np.add.at(crossings, (row - box.y, at), 1)
    return np.asarray(np.cumsum(crossings, 1)[:, : box.width] % 2 == 1)


def _edges(shape: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the start and end points of the edges of all rings, ``(E, 2)`` each."""
    # Twice, as a collection may contain multi-part shapes.
    rings = shapely.get_rings(shapely.get_parts(shapely.get_parts(shape)))
    points, ring = shapely.get_coordinates(rings, return_index=True)
    same = ring[1:] == ring[:-1]
    return points[:-1][same], points[1:][same]
