"""Place training windows on annotated areas, independent of the grid of tiles."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from wsiseg.geometry import Box
from wsiseg.grid import TileGrid

__all__ = ["CELLS", "clip", "draw_cells", "intersect", "keep_polygons", "place_windows"]

CELLS = 28
"""Cells along a window's side; 4 µm each for a window of 112 µm."""


def place_windows(area: Any, grid: TileGrid, least: float) -> Iterator[list[Box]]:
    """Place windows of tile size on each connected part of an area, yielding rows of windows.

    The part's bounding box is divided into cells close to tile size. Each cell gets a window
    centred on the centroid of the part within it: a small part has one window around its centroid,
    a rectangle of whole tiles exactly these tiles. Windows stay within the raster if it is large
    enough.

    Parameters
    ----------
    area
        Polygons in raster pixels.
    least
        Skip cells of which the part covers less than this fraction. If all are such, as along a
        thin strip, those are used that it covers half as much as the fullest.
    """
    for part in _polygons(area):
        left, top, right, bottom = part.bounds
        xs, ys = _divide(left, right, grid.tile), _divide(top, bottom, grid.tile)
        thin: list[tuple[float, Box]] | None = []
        for low, high in pairwise(ys):
            band = clip(part, left, low, right, high)
            row = []
            for near, far in pairwise(xs):
                piece = clip(band, near, low, far, high)
                share = piece.area / ((far - near) * (high - low))
                if share >= least:
                    row.append(_window_about(piece, grid))
                elif share and thin is not None:
                    thin.append((share, _window_about(piece, grid)))
            if row:
                thin = None
                yield row
        if thin:
            fullest = max(share for share, _ in thin)
            yield [window for share, window in thin if share >= fullest / 2]


def clip(shape: Any, left: float, top: float, right: float, bottom: float) -> Any:
    """Clip a shape to a rectangle, keeping polygons only."""
    return intersect(shape, shapely.box(left, top, right, bottom))


def intersect(shape: Any, other: Any) -> Any:
    """Intersect two shapes, keeping polygons only."""
    return keep_polygons(shapely.intersection(shape, other))


def keep_polygons(shape: Any) -> Any:
    """Return the polygons of a shape: where two areas also touch, their intersection has lines."""
    return shapely.MultiPolygon(_polygons(shape))


def draw_cells(area: Any, box: Box) -> NDArray[np.bool_]:
    """Return ``(CELLS, CELLS)`` bool: cells of a window with centres in `area`; at least one."""
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
    """Divide an interval into equal steps of about one tile; return the edges."""
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
    """Split a shape completely, as a collection may contain multi-part shapes."""
    parts = shapely.get_parts(shape)
    nested = any(part.geom_type.startswith(("Multi", "Geometry")) for part in parts)
    return list(shapely.get_parts(parts) if nested else parts)
