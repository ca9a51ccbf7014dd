"""Which pixels the lattice works on: all, or those around the borders of the likeliest classes.

Potts messages speak for the class that most of the weights around a pixel hold. Where one class is
the most probable at every pixel that a pixel ever hears of, it stays so: by induction its message
is the largest in each iteration. A lattice of standard deviation 10 reaches 20 px, and what lies
farther from a border only says again what nearer pixels say.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsiseg.model.crf.order import compiled

__all__ = [
    "Region",
    "find_region",
    "pick_classes",
    "sum_decided",
    "whole_region",
]

_STRIP = 256
"""Columns that are handled together, so that what neighbours share stays in the cache."""

_CELL = 8
"""Pixels a side of the squares that are worked on or left out."""


class Region(NamedTuple):
    """Pixels in the order in which they are worked on."""

    spans: NDArray[np.int32]
    """`(S, 4)`: row, first column, end and first pixel's number of each run of pixels in a row;
    strips of columns one after the other, the rows of each from the top."""
    inside: NDArray[np.bool_]
    """`(H / cell, W / cell)` rounded up: the squares that they fill."""
    cell: int
    """Pixels a side of a square."""

    @property
    def pixels(self) -> int:
        """How many pixels it has."""
        return (
            int(self.spans[-1, 3] + self.spans[-1, 2] - self.spans[-1, 1]) if len(self.spans) else 0
        )


def whole_region(height: int, width: int) -> Region:
    """All pixels of an image."""
    return _region(np.ones((1, 1), np.bool_), max(height, width), height, width)


def find_region(labels: NDArray[np.uint8], band: int, scale: int) -> Region:
    """Pixels within `band` px of a border between labels, in whole squares.

    `labels` is `(H, W)`, of one pixel in `scale` each way.
    """
    cell = max(1, _CELL // scale)
    inside = _find_cells(labels, cell)
    for _ in range(-(-band // _CELL)):
        inside = _grow_by_one(inside)
    return _region(inside, cell, *labels.shape)


def _region(inside: NDArray[np.bool_], cell: int, height: int, width: int) -> Region:
    return Region(_list_spans(inside, cell, height, width), inside, cell)


def _grow_by_one(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(inside, 1)
    rows = padded[:-2] | padded[1:-1] | padded[2:]
    grown: NDArray[np.bool_] = rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]
    return grown


@compiled
def _find_cells(labels, cell):  # type: ignore[no-untyped-def] # numba infers
    """Squares with a pixel whose right or lower neighbour has another label, and those of these."""
    height, width = labels.shape
    inside = np.zeros((-(-height // cell), -(-width // cell)), np.bool_)
    for y in range(height):
        below = min(y + 1, height - 1)
        for x in range(width):
            right = min(x + 1, width - 1)
            if labels[y, x] != labels[below, x] or labels[y, x] != labels[y, right]:
                inside[y // cell, x // cell] = True
                inside[below // cell, x // cell] = True
                inside[y // cell, right // cell] = True
    return inside


@compiled
def _list_spans(inside, cell, height, width):  # type: ignore[no-untyped-def] # numba infers
    spans = np.empty((height * (-(-width // _STRIP) + (inside.shape[1] + 1) // 2), 4), np.int32)
    count, first = 0, 0
    for start in range(0, width, _STRIP):
        stop = min(start + _STRIP, width)
        for y in range(height):
            row = inside[y // cell]
            x = start
            while x < stop:
                end = min((x // cell + 1) * cell, stop)
                if row[x // cell]:
                    while end < stop and row[end // cell]:
                        end = min(end + cell, stop)
                    spans[count] = (y, x, end, first)
                    first += end - x
                    count += 1
                x = end
    return spans[:count].copy()


@compiled
def pick_classes(prior):  # type: ignore[no-untyped-def] # numba infers
    """The most probable class, `(H, W)` uint8; of equals the first."""
    classes, height, width = prior.shape
    labels = np.zeros((height, width), np.uint8)
    best = np.empty(width, np.float32)
    for y in range(height):
        best[:] = prior[0, y]
        for c in range(1, classes):
            for x in range(width):
                better = prior[c, y, x] > best[x]
                best[x] = prior[c, y, x] if better else best[x]
                labels[y, x] = np.uint8(c) if better else labels[y, x]
    return labels


@compiled
def sum_decided(labels, inside, cell, down, across, lanes, sums):  # type: ignore[no-untyped-def] # numba infers
    """Add what the pixels left out send to the coarse grid, in every iteration: their class."""
    height, width = labels.shape
    for y in range(height):
        base = down.cell[y] * across.cells
        for left in range(0, width, cell):
            if not inside[y // cell, left // cell]:
                for x in range(left, min(left + cell, width)):
                    at = (base + across.cell[x]) * lanes + labels[y, x]
                    sums[at] += down.norm[y] * across.norm[x]
