"""The smoothness kernel of the numba back end: a Gaussian on a coarse grid.

A Gaussian 15 pixels wide needs no more than every fourth pixel: cells sum their pixels, a smaller
Gaussian filters the cells, pixels interpolate between cells. The widths add up to the one wanted.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsiseg.model.crf.lanes import LANES, add_scaled, load, scaled, store
from wsiseg.model.crf.order import compiled
from wsiseg.model.crf.window import SMOOTH_REACH

__all__ = ["Axis", "coarse_axis", "filter_grid"]

_FINEST = {1: 3.0, 2: 1.5}
"""Cells a standard deviation at least, by `scale`: where one pixel stands for four, the grid's own
error does not show."""


class Axis(NamedTuple):
    """One axis of the coarse grid; a frame of one empty cell surrounds the image."""

    cells: int
    """Number of cells, frame included."""
    cell: NDArray[np.int32]
    """`(size,)`: the cell that sums each pixel."""
    left: NDArray[np.int32]
    """`(size * finer,)`: the lower of the two cells between which each pixel interpolates."""
    share: NDArray[np.float32]
    """`(size,)`: weight of the upper one of them."""
    norm: NDArray[np.float32]
    """`(size,)`: the pixel's factor of the symmetric norm."""
    taps: NDArray[np.float32]
    """`(2 * radius + 1,)`: the Gaussian between cells."""


def coarse_axis(size: int, sxy: float, scale: int = 1, finer: int = 1) -> Axis:
    """The coarse axis of `size` pixels, of one in `scale`, for a standard deviation in these.

    With `finer`, what is read at each pixel is read at so many places from it on to the next.
    """
    step = 1
    while sxy / (2 * step) >= _FINEST[scale]:
        step *= 2
    at = np.arange(size)
    cell = at // step + 1
    centre = (np.arange(size * finer) / finer + 0.5) / step + 0.5
    left = np.floor(centre).astype(np.int32)
    share = centre - left
    # What summing (a box) and interpolating (a tent) widen already; nothing where cells are pixels.
    widened = (step**2 - 1) / 12 + (step**2 / 6 if step > 1 else 0.0)
    width = math.sqrt(sxy**2 - widened) / step
    radius = math.ceil(SMOOTH_REACH * width)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / width) ** 2)
    cells = int(cell[-1]) + 2
    sums = np.convolve(np.bincount(cell, minlength=cells), taps)[radius : radius + cells]
    row = (1 - share) * sums[left] + share * sums[np.minimum(left + 1, cells - 1)]
    return Axis(
        cells,
        cell.astype(np.int32),
        left,
        share.astype(np.float32),
        (1 / np.sqrt(row)).astype(np.float32),
        taps.astype(np.float32),
    )


@compiled
def filter_grid(grid, buffer, rows, columns, lanes, down, across):  # type: ignore[no-untyped-def] # numba infers
    """Filter flat `rows * columns * lanes` sums in place with the taps of both axes."""
    _filter_lines(grid, buffer, rows, columns, columns, 1, lanes, across)
    _filter_lines(buffer, grid, columns, rows, 1, columns, lanes, down)


@compiled
def _filter_lines(source, target, lines, cells, line_step, cell_step, lanes, taps):  # type: ignore[no-untyped-def] # numba infers
    """Filter each of `lines` lines of cells; the steps say how far apart they are."""
    radius = len(taps) // 2
    for line in range(lines):
        for cell in range(cells):
            first = max(0, cell - radius)
            end = min(cells, cell + radius + 1)
            for k in range(0, lanes, LANES):
                base = line * line_step * lanes + k
                step = cell_step * lanes
                total = scaled(taps[first - cell + radius], load(source, base + first * step))
                for i in range(first + 1, end):
                    tap = taps[i - cell + radius]
                    total = add_scaled(total, tap, load(source, base + i * step))
                store(target, base + cell * step, total)
