"""Area averaging by any factor, in absolute coordinates, so that parts equal the whole."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from wsiseg.shrink import FACTORS, are_rows, mean_squares, move

__all__ = ["AxisWeights", "area_mean", "axis_weights"]

_SNAP = 1e-6
"""Edges and factors this close to a whole number are taken as whole: float noise of mpp ratios."""


class AxisWeights(NamedTuple):
    """Which source pixels each output pixel covers along one axis, and how much of each.

    Output pixel ``i`` is the sum of ``source[start[i] + k] * weight[i, k]``, divided by `factor`.
    """

    start: NDArray[np.int64]
    """``(n,)`` absolute index of the first source pixel."""
    weight: NDArray[np.float32]
    """``(n, taps)`` covered length of each source pixel, in [0, 1]; 0 beyond the covered ones."""
    factor: float
    """Source pixels per output pixel."""

    @property
    def first(self) -> int:
        """First source pixel needed."""
        return int(self.start[0])

    @property
    def stop(self) -> int:
        """One past the last source pixel that may be touched."""
        return int(self.start[-1]) + int(self.weight.shape[1])

    def part(self, start: int, stop: int) -> AxisWeights:
        """The weights of output pixels ``start .. stop`` of these."""
        return AxisWeights(self.start[start:stop], self.weight[start:stop], self.factor)


@lru_cache(64)
def axis_weights(first: int, count: int, factor: float) -> AxisWeights:
    """Weights of output pixels ``first .. first + count`` (`count` >= 1).

    Output pixel ``i`` covers source interval ``[i * factor, (i + 1) * factor)``. Weights depend on
    the absolute ``i`` only, not on `first`. A `factor` below 1 enlarges: mostly nearest neighbour,
    with a blend where an output pixel lies across a source edge. The boxes of a block share them,
    so the arrays are not to be written to.
    """
    factor = _snap(factor)
    edges = np.arange(first, first + count + 1, dtype=np.float64) * factor
    whole = np.rint(edges)
    edges = np.where(np.abs(edges - whole) < _SNAP, whole, edges)
    low, high = edges[:-1], edges[1:]
    start = np.floor(low).astype(np.int64)
    # Fixed by the factor, not by this box: ceil(factor) + 1 pixels always hold the interval.
    source = start[:, None] + np.arange(math.ceil(factor) + 1 if factor % 1 else int(factor))
    overlap = np.minimum(source + 1, high[:, None]) - np.maximum(source, low[:, None])
    weight = np.clip(overlap, 0, 1).astype(np.float32)
    start.flags.writeable = weight.flags.writeable = False
    return AxisWeights(start, weight, factor)


def area_mean(
    source: NDArray[np.uint8],
    rows: AxisWeights,
    columns: AxisWeights,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Average `source` over the pixels that `rows` and `columns` describe, rounding half up.

    Parameters
    ----------
    source
        ``(rows.stop - rows.first, columns.stop - columns.first, 3)`` uint8.
    rows, columns
        Weights along y and x.
    out
        Written into if it is given.

    Returns
    -------
    ``(len(rows.start), len(columns.start), 3)`` uint8. For whole factors the sums are whole numbers
    below 2**24, hence exact in float32.
    """
    source = np.ascontiguousarray(source)
    if out is None:
        out = np.empty((len(rows.start), len(columns.start), 3), np.uint8)
    if not are_rows(out):
        out[:] = area_mean(source, rows, columns)
        return out
    if rows.factor == 1 and columns.factor == 1:
        out[:] = source
        return out
    # Which loop runs hangs on the factors alone, so that every box gives the same pixel.
    if rows.factor == columns.factor in FACTORS:
        return mean_squares(source, int(rows.factor), out)
    area = np.float32(rows.factor * columns.factor)
    places = rows.start - rows.first, rows.weight, columns.start - columns.first
    if (
        rows.weight.shape[1] == columns.weight.shape[1] == 3
        and min(rows.factor, columns.factor) > 1
    ):
        _average_three(source, *places, _spread(columns) / area, out)
    else:
        _average(source, *places, columns.weight, area, out)
    return out


def _spread(axis: AxisWeights) -> NDArray[np.float32]:
    """The weights at the first value of each output pixel in a line of RGB: ``(taps, 3 * n)``."""
    first = axis.start - axis.first
    spread = np.zeros((axis.weight.shape[1], axis.stop - axis.first, 3), np.float32)
    spread[:, first] = axis.weight.T[..., None]
    return spread.reshape(len(spread), -1)


def _snap(factor: float) -> float:
    whole = round(factor)
    return float(whole) if whole >= 1 and abs(factor - whole) < _SNAP else factor


# The loops below run over neighbours in memory, many at a time; a loop over output pixels, which
# jumps from one to the next, costs several times as much. So sums are taken at every place of a
# line, also where no output pixel starts, and those that are wanted are picked last.


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _average_three(source, row_start, row_weight, column_start, spread, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """`_average` for three taps; `spread` has the columns' weights, divided by the area."""
    flat = source.reshape(source.shape[0], source.shape[1] * 3)
    line = np.zeros(flat.shape[1] + 6, np.float32)
    mean = np.empty(flat.shape[1] + 1, np.uint8)
    picked = np.empty(3 * out.shape[1] + 1, np.uint8)
    half = np.float32(0.5)
    left, middle, right = spread[0], spread[1], spread[2]
    for i in range(out.shape[0]):
        top, centre, bottom = row_weight[i, 0], row_weight[i, 1], row_weight[i, 2]
        at = row_start[i]
        first, second, third = flat[at], flat[at + 1], flat[at + 2]
        for x in range(flat.shape[1]):
            upper = top * np.float32(first[x]) + centre * np.float32(second[x])
            line[x] = upper + bottom * np.float32(third[x])
        for x in range(flat.shape[1]):
            total = left[x] * line[x] + middle[x] * line[x + 3] + right[x] * line[x + 6]
            mean[x] = np.int32(total + half)
        for j in range(out.shape[1]):
            move(picked, 3 * j, mean, 3 * column_start[j], 4)
        move(out, i * out.strides[0], picked, 0, 3 * out.shape[1])


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _average(  # type: ignore[no-untyped-def]  # numba infers the types
    source, row_start, row_weight, column_start, column_weight, area, out
):
    # Rows first, into one float32 line that stays in cache; then columns. The order of the sums
    # is that of the absolute taps, so every box gives the same pixel.
    flat = source.reshape(source.shape[0], source.shape[1] * 3)
    line = np.empty(flat.shape[1], np.float32)
    half = np.float32(0.5)
    for i in range(out.shape[0]):
        line[:] = 0
        for k in range(row_weight.shape[1]):
            weight = row_weight[i, k]
            if weight > 0:
                row = flat[row_start[i] + k]
                for x in range(line.shape[0]):
                    line[x] += weight * np.float32(row[x])
        for j in range(out.shape[1]):
            red = green = blue = np.float32(0)
            at = column_start[j] * 3
            for k in range(column_weight.shape[1]):
                weight = column_weight[j, k]
                red += weight * line[at]
                green += weight * line[at + 1]
                blue += weight * line[at + 2]
                at += 3
            out[i, j, 0] = np.uint8(red / area + half)
            out[i, j, 1] = np.uint8(green / area + half)
            out[i, j, 2] = np.uint8(blue / area + half)
