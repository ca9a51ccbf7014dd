"""Overlapping CAMs blended into one field over a box.

Every CAM cell spreads over a tent of one cell's radius about its centre, and the field is the
weighted mean of the cells that reach a pixel (a normalised convolution). Where tiles lie side by
side this is bilinear interpolation *across* their border, so that there is no seam even without
overlap; where they overlap, a window that falls off towards the tile's edge weighs them. Either
way the sum is divided by the summed weights, so a constant field stays constant.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

from wsiseg.geometry import Box
from wsiseg.grid import TileGrid

__all__ = ["blend_cams", "reach", "window"]


def reach(grid: TileGrid, cells: int) -> int:
    """Pixels by which a tile of `cells` CAM cells a side spreads past its own window."""
    return math.ceil(grid.tile / cells / 2)


def window(grid: TileGrid, cells: int) -> NDArray[np.float32]:
    """``(cells,)`` weights along one side: a ramp over the overlap, 1 where tiles do not overlap.

    At a stride that divides the tile, the windows of overlapping tiles add up to a constant.
    """
    overlap = grid.tile - grid.stride
    if overlap == 0:
        return np.ones(cells, np.float32)
    centre = (np.arange(cells) + 0.5) * grid.tile / cells
    ramp = np.minimum(centre, grid.tile - centre) / overlap
    return np.minimum(ramp, 1).astype(np.float32)


def blend_cams(
    grid: TileGrid, box: Box, first: tuple[int, int], cams: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The blended field over `box`, and where any tile reaches.

    Parameters
    ----------
    grid
        The tiles' geometry.
    box
        Raster pixels wanted.
    first
        ``(row, col)`` of the tile ``cams[0, 0]``.
    cams
        ``(rows, cols, K, h, w)`` float32; tiles whose first value is NaN are left out.

    Returns
    -------
    ``(K, H, W)`` float32, 0 where no tile reaches, and ``(H, W)`` bool. A pixel's sum runs over
    the tiles in row-major order, whatever the box: boxes cut from a larger one agree bit by bit.
    """
    rows, cols, classes, height, width = cams.shape
    field = np.zeros((classes, box.height, box.width), np.float32)
    weights = np.zeros((box.height, box.width), np.float32)
    tall, wide = window(grid, height), window(grid, width)
    for row in range(rows):
        for col in range(cols):
            cam = cams[row, col]
            if math.isnan(cam[0, 0, 0]):
                continue
            tile = grid.tile_box(first[0] + row, first[1] + col)
            _add_tile(
                field, weights, cam, tall, wide, tile.y - box.y, tile.x - box.x, grid.tile
            )  # fmt: skip
    reached = weights > 0
    np.divide(field, weights, out=field, where=reached)
    return field, reached


@numba.njit(nogil=True, cache=True)
def _add_tile(field, weights, cam, tall, wide, top, left, tile):  # type: ignore[no-untyped-def]  # numba infers the types
    classes, height, width = cam.shape
    cell_y, cell_x = np.float32(tile / height), np.float32(tile / width)
    half_y, half_x = int(np.ceil(cell_y / 2)), int(np.ceil(cell_x / 2))
    for y in range(max(0, top - half_y), min(field.shape[1], top + tile + half_y)):
        # Cell centres lie at (i + 0.5) * cell; a pixel's centre between centres i and i + 1.
        v = np.float32(y - top + 0.5) / cell_y - np.float32(0.5)
        i = int(np.floor(v))
        low_y = (np.float32(1) - (v - i)) * tall[i] if 0 <= i < height else np.float32(0)
        high_y = (v - i) * tall[i + 1] if 0 <= i + 1 < height else np.float32(0)
        i0, i1 = min(max(i, 0), height - 1), min(max(i + 1, 0), height - 1)
        for x in range(max(0, left - half_x), min(field.shape[2], left + tile + half_x)):
            u = np.float32(x - left + 0.5) / cell_x - np.float32(0.5)
            j = int(np.floor(u))
            low_x = (np.float32(1) - (u - j)) * wide[j] if 0 <= j < width else np.float32(0)
            high_x = (u - j) * wide[j + 1] if 0 <= j + 1 < width else np.float32(0)
            j0, j1 = min(max(j, 0), width - 1), min(max(j + 1, 0), width - 1)
            weights[y, x] += (low_y + high_y) * (low_x + high_x)
            for k in range(classes):
                upper = low_x * cam[k, i0, j0] + high_x * cam[k, i0, j1]
                lower = low_x * cam[k, i1, j0] + high_x * cam[k, i1, j1]
                field[k, y, x] += low_y * upper + high_y * lower
