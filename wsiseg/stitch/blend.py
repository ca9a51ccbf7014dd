"""Blend overlapping CAMs into one field over a box.

Each CAM cell spreads as a tent with a radius of one cell about its centre, and the field is the
weighted mean of the cells that reach a pixel (a normalised convolution). Where tiles lie side by
side this is bilinear interpolation *across* their border, so there is no seam even without overlap;
overlapping tiles are weighted by a window that falls off towards the tile's edge. In both cases the
sum is divided by the summed weights, so a constant field stays constant.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsiseg.geometry import Box
from wsiseg.grid import TileGrid
from wsiseg.kernels import kernel

__all__ = ["Tiles", "add_span", "blend_cams", "make_cells", "place_tiles", "reach", "window"]


class Taps(NamedTuple):
    """Weights of the two neighbouring cells at each pixel along one side of a tile."""

    low: NDArray[np.float32]
    """``(n,)`` weight of the cell before the pixel's centre; starts `reach` px before the tile."""
    high: NDArray[np.float32]
    """``(n,)`` weight of the cell after it."""
    starts: NDArray[np.int64]
    """``(cells + 2,)``: from pixel ``starts[i]``, the two cells are ``i - 1`` and ``i``."""


class Tiles(NamedTuple):
    """CAMs of a rectangle of tiles, prepared for summation over the rows of a box."""

    cams: NDArray[np.float32]
    """``(rows, cols, K, h, w)``."""
    known: NDArray[np.bool_]
    """``(rows, cols)``: which tiles exist."""
    tall: Taps
    wide: Taps
    top: int
    """Row of the box where the first tile's taps begin; negative if above the box."""
    left: int
    stride: int


def reach(grid: TileGrid, cells: int) -> int:
    """Return by how many pixels a tile of `cells` CAM cells per side extends past its window."""
    return math.ceil(grid.tile / cells / 2)


def window(grid: TileGrid, cells: int) -> NDArray[np.float32]:
    """Return weights ``(cells,)`` along one side: Tukey's window; all 1 if tiles do not overlap.

    The squared-sine taper is as long as the overlap, but at most half a tile. The outermost cells,
    which suffer most from a model's padding, hardly count: with a linear ramp, labels changed 8 %
    more often at the borders of tiles than elsewhere. If the stride divides the tile, the windows
    of overlapping tiles add up to a constant.
    """
    overlap = grid.tile - grid.stride
    if overlap == 0:
        return np.ones(cells, np.float32)
    centre = (np.arange(cells) + 0.5) * grid.tile / cells
    taper = np.minimum(centre, grid.tile - centre) / min(overlap, grid.tile / 2)
    return (np.sin(np.pi / 2 * np.minimum(taper, 1)) ** 2).astype(np.float32)


def blend_cams(
    grid: TileGrid, box: Box, first: tuple[int, int], cams: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the blended field over `box`, and where any tile reaches.

    Parameters
    ----------
    grid
        Geometry of the tiles.
    box
        In raster pixels.
    first
        ``(row, col)`` of the tile ``cams[0, 0]``.
    cams
        ``(rows, cols, K, h, w)`` float32; tiles whose first value is NaN are skipped.

    Returns
    -------
    ``(K, H, W)`` float32, 0 where no tile reaches, and ``(H, W)`` bool. For any box,
    a pixel sums the tiles of each column from the top, then the columns from the left, so boxes
    cut from a larger one are identical bit by bit.
    """
    field, weights = _blend(place_tiles(grid, box, first, cams), box.height, box.width)
    return field, weights > 0


def place_tiles(
    grid: TileGrid, box: Box, first: tuple[int, int], cams: NDArray[np.float32]
) -> Tiles:
    """Prepare the tiles of `blend_cams` for `add_span`."""
    height, width = cams.shape[3:]
    corner = grid.tile_box(*first)
    return Tiles(
        np.ascontiguousarray(cams), ~np.isnan(cams[:, :, 0, 0, 0]), _taps(grid, height),
        _taps(grid, width), corner.y - box.y - reach(grid, height),
        corner.x - box.x - reach(grid, width), grid.stride,
    )  # fmt: skip


def _taps(grid: TileGrid, cells: int) -> Taps:
    margin, weights = reach(grid, cells), np.pad(window(grid, cells), 1)
    # Cell centres lie at (i + 0.5) * cell; a pixel's centre between centres i and i + 1.
    at = (np.arange(-margin, grid.tile + margin) + 0.5) * cells / grid.tile - 0.5
    before = np.clip(np.floor(at), -1, cells - 1).astype(np.int64)
    low = np.maximum((before + 1 - at) * weights[before + 1], 0).astype(np.float32)
    high = np.maximum((at - before) * weights[before + 2], 0).astype(np.float32)
    return Taps(low, high, np.searchsorted(before, np.arange(-1, cells + 1)))


@kernel
def _blend(tiles, height, width):  # type: ignore[no-untyped-def]  # numba infers the types
    classes, cells = tiles.cams.shape[2], make_cells(tiles)
    field = np.empty((classes, height, width), np.float32)
    weights, row = np.empty((height, width), np.float32), np.empty((classes, width), np.float32)
    for y in range(height):
        add_span(tiles, y, 0, cells, row, weights[y])
        for k in range(classes):
            for x in range(width):
                field[k, y, x] = row[k, x] / weights[y, x] if weights[y, x] > 0 else 0
    return field, weights


@kernel
def make_cells(tiles):  # type: ignore[no-untyped-def]  # numba infers the types
    """Allocate one row of a tile's cells, with an empty cell at either end."""
    return np.zeros((tiles.cams.shape[2], tiles.cams.shape[4] + 2), np.float32)


@kernel
def add_span(tiles, y, first, cells, field, weights):  # type: ignore[no-untyped-def]  # numba infers the types
    """Sum a span of the box's row `y`, starting at column `first`.

    Weighted maps ``(K, n)`` and weights ``(n,)``, float32, are written to `field` and `weights`;
    `cells` comes from `make_cells`. The tiles of a column are summed first, cell by cell, as there
    are few cells; pixels are then summed only along the row.
    """
    size, stride, taps = weights.size, tiles.stride, tiles.wide
    field[:], weights[:] = 0, 0
    for col in range(tiles.cams.shape[1]):
        start = tiles.left + col * stride - first
        if start >= size or start + taps.low.size <= 0:
            continue
        total = _sum_column(tiles, y, col, cells)
        if total == 0:
            continue
        for i in range(taps.starts.size - 1):
            begin, end = max(0, start + taps.starts[i]), min(size, start + taps.starts[i + 1])
            if begin >= end:
                continue
            before, after = (
                taps.low[begin - start : end - start],
                taps.high[begin - start : end - start],
            )
            mass = weights[begin:end]
            for x in range(mass.size):
                mass[x] += (before[x] + after[x]) * total
            for k in range(field.shape[0]):
                line, one, two = field[k, begin:end], cells[k, i], cells[k, i + 1]
                for x in range(line.size):
                    line[x] += before[x] * one + after[x] * two


@kernel
def _sum_column(tiles, y, col, cells):  # type: ignore[no-untyped-def]  # numba infers the types
    """Sum row `y` of a column of tiles from the top into `cells`; return the sum of weights."""
    rows, _, classes, height, width = tiles.cams.shape
    tall, total = tiles.tall, np.float32(0)
    cells[:] = 0
    for row in range(rows):
        at = y - tiles.top - row * tiles.stride
        if not (0 <= at < tall.low.size and tiles.known[row, col]):
            continue
        below = np.searchsorted(tall.starts, at, side="right") - 1
        upper, lower = max(below - 1, 0), min(below, height - 1)
        low, high = tall.low[at], tall.high[at]
        total += low + high
        for k in range(classes):
            line = cells[k]
            one, two = tiles.cams[row, col, k, upper], tiles.cams[row, col, k, lower]
            for j in range(width):
                line[j + 1] += low * one[j] + high * two[j]
    return total
