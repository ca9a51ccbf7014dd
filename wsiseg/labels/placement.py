"""Training windows laid on what was annotated, wherever the tiles of the grid lie."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from wsiseg.geometry import Box
from wsiseg.grid import TileGrid

__all__ = ["CELLS", "clip", "draw_cells", "intersect", "place_windows"]

CELLS = 28
"""Cells along a window's side: of 4 µm, where a window is 112 µm."""


def place_windows(area: Any, grid: TileGrid, least: float) -> Iterator[list[Box]]:
    """Windows of one tile's size on each connected part of an area, row by row of windows.

    The part's bounding box is divided into cells as near to a tile's size as it goes, and each cell
    has a window about the centroid of what it holds of the part: a small part has one window
    about its centroid, a rectangle of whole tiles exactly these. Windows stay within the raster
    where it is large enough.

    Parameters
    ----------
    area
        Polygons in raster pixels.
    least
        A cell is passed over if the part covers less than this fraction of it, unless all are.
    """
    for part in _polygons(area):
        left, top, right, bottom = part.bounds
        xs, ys = _divide(left, right, grid.tile), _divide(top, bottom, grid.tile)
        most, fallback = 0.0, None
        for low, high in pairwise(ys):
            band = clip(part, left, low, right, high)
            row = []
            for near, far in pairwise(xs):
                piece = clip(band, near, low, far, high)
                share = piece.area / ((far - near) * (high - low))
                if share >= least:
                    row.append(_window_about(piece, grid))
                if share > most:
                    most, fallback = share, piece
            if row:
                most = np.inf
                yield row
        if fallback is not None and most < np.inf:
            yield [_window_about(fallback, grid)]


def clip(shape: Any, left: float, top: float, right: float, bottom: float) -> Any:
    """What of a shape lies in a rectangle, as polygons."""
    return intersect(shape, shapely.box(left, top, right, bottom))


def intersect(shape: Any, other: Any) -> Any:
    """What two shapes have in common, as polygons."""
    return shapely.MultiPolygon(_polygons(shapely.intersection(shape, other)))


def draw_cells(area: Any, box: Box) -> NDArray[np.bool_]:
    """``(CELLS, CELLS)`` bool: the cells of a window whose centres lie in `area`; at least one."""
    step = box.width / CELLS
    x, y = np.meshgrid(*[(np.arange(CELLS) + 0.5) * step] * 2)
    shapely.prepare(area)
    inside = np.asarray(shapely.contains_xy(area, x + box.x, y + box.y))
    if not inside.any():
        point = shapely.point_on_surface(area)
        row, col = int((point.y - box.y) // step), int((point.x - box.x) // step)
        inside[min(row, CELLS - 1), min(col, CELLS - 1)] = True
    return inside


def _divide(low: float, high: float, tile: int) -> list[float]:
    """Edges of equal steps of about a tile."""
    count = max(1, round((high - low) / tile))
    return [low + (high - low) * at / count for at in range(count)] + [high]


def _window_about(piece: Any, grid: TileGrid) -> Box:
    middle = shapely.centroid(piece)
    x, y = (
        min(max(0, round(at - grid.tile / 2)), max(0, side - grid.tile))
        for at, side in ((middle.x, grid.width), (middle.y, grid.height))
    )
    return Box(x, y, grid.tile, grid.tile)


def _polygons(shape: Any) -> list[Any]:
    return [part for part in _parts(shape) if part.geom_type == "Polygon" and part.area > 0]


def _parts(shape: Any) -> list[Any]:
    """All the way down, as a collection may hold multi-parts."""
    parts = shapely.get_parts(shape)
    nested = any(part.geom_type.startswith(("Multi", "Geometry")) for part in parts)
    return list(shapely.get_parts(parts) if nested else parts)
