"""How much of each tile lies in an area: exact, by polygons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from wsiseg.config import LabelConfig
from wsiseg.geometry import Box
from wsiseg.grid import TileGrid
from wsiseg.store import SlideStore

__all__ = ["Affine", "join", "place_of", "tile_cover", "to_raster"]

Affine = tuple[tuple[float, float], tuple[float, float]]
"""Origin ``(x, y)`` in level-0 px that the file calls (0, 0), and level-0 px a raster px."""


def place_of(store: SlideStore, config: LabelConfig, level0: bool = False) -> Affine:
    """Where a file's pixels lie on the store's raster."""
    cropped = config.origin == "qupath" and not level0
    origin = store.slide["bounds"][:2] if cropped else (0, 0)
    x, y = store.slide["mpp"]
    return (origin[0], origin[1]), (store.mpp / x, store.mpp / y)


def to_raster(shape: Any, place: Affine) -> Any:
    """A shape, or an array of them, of a file's pixels in raster pixels."""
    origin, scale = (np.array(pair) for pair in place)
    return shapely.transform(shape, lambda points: (points + origin) / scale)


def join(shapes: Sequence[Any]) -> Any:
    """The union of areas, whatever is wrong with their rings."""
    return shapely.union_all([shapely.make_valid(shape) for shape in shapes])


def tile_cover(shape: Any, grid: TileGrid) -> NDArray[np.float64]:
    """``(rows, cols)`` float64 in [0, 1]: the share of each tile's square that `shape` covers."""
    covered = np.zeros((grid.rows, grid.cols))
    parts = shapely.get_parts(shape)
    tree = shapely.STRtree(parts)
    for block in range(grid.n_blocks):
        tiles = np.array(list(grid.block_tiles(block))).reshape(-1, 2)
        if not len(tiles):
            continue
        boxes = [grid.tile_box(row, col) for row, col in tiles.tolist()]
        # First to the block, then to its tiles: an outline may have very many points.
        window = _rectangle(boxes[0], boxes[-1])
        near = shapely.intersection(parts[tree.query(window, predicate="intersects")], window)
        if len(near):
            squares = np.array([_rectangle(box, box) for box in boxes])
            inside = shapely.area(shapely.intersection(near[None], squares[:, None])).sum(1)
            covered[tuple(tiles.T)] = inside / grid.tile**2
    return covered


def _rectangle(first: Box, last: Box) -> Any:
    return shapely.box(first.x, first.y, last.right, last.bottom)
