"""Area averaging by any factor, in absolute coordinates, so that parts equal the whole image."""

from __future__ import annotations

import math
from functools import cache, lru_cache
from types import ModuleType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsiseg.compiling import loading, pays
from wsiseg.shrink import FACTORS, are_rows, mean_squares

__all__ = ["AxisWeights", "area_mean", "axis_weights"]

_LINE_VALUES = 2**17
"""Number of sums that NumPy holds at a time: they stay in the processor's cache."""
_SNAP = 1e-6
"""Edges and factors this close to an integer are rounded: µm/px ratios have float noise."""


class AxisWeights(NamedTuple):
    """The source pixels that each output pixel covers along one axis, and how much of each.

    Output pixel ``i`` is the sum of ``source[start[i] + k] * weight[i, k]``, divided by `factor`.
    """

    start: NDArray[np.int64]
    """``(n,)`` absolute indices of the first source pixels."""
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
        """Return the weights of output pixels ``start .. stop`` of these."""
        return AxisWeights(self.start[start:stop], self.weight[start:stop], self.factor)


@lru_cache(64)
def axis_weights(first: int, count: int, factor: float) -> AxisWeights:
    """Return the weights of output pixels ``first .. first + count`` (`count` >= 1).

    Output pixel ``i`` covers the source interval ``[i * factor, (i + 1) * factor)``. Weights depend
    on the absolute ``i`` only, not on `first`. A `factor` below 1 enlarges: nearest neighbour,
    blended where an output pixel lies across a source edge. The boxes of a block share the arrays,
    which are read-only.
    """
    factor = _snap(factor)
    edges = np.arange(first, first + count + 1, dtype=np.float64) * factor
    rounded = np.rint(edges)
    edges = np.where(np.abs(edges - rounded) < _SNAP, rounded, edges)
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
        Array to write to; a new one if not given.

    Returns
    -------
    ``(len(rows.start), len(columns.start), 3)`` uint8. For integer factors the sums are integers
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
    # The choice of the loop depends on the factors only, so that every box gives the same pixel.
    if rows.factor == columns.factor in FACTORS:
        return mean_squares(source, int(rows.factor), out)
    area = np.float32(rows.factor * columns.factor)
    down = rows.start - rows.first, rows.weight
    column_start = columns.start - columns.first
    three_taps = rows.weight.shape[1] == columns.weight.shape[1] == 3
    three_taps &= min(rows.factor, columns.factor) > 1
    if not pays(source.size):
        weight = columns.weight
        if three_taps:
            weight, area = weight / area, np.float32(1)
        _average(source, *down, column_start, weight, area, out)
    elif three_taps:
        _load_loops().average_three(source, *down, column_start, _spread(columns) / area, out)
    else:
        _load_loops().average(source, *down, column_start, columns.weight, area, out)
    return out


def _average(
    source: NDArray[np.uint8],
    row_start: NDArray[np.int64],
    row_weight: NDArray[np.float32],
    column_start: NDArray[np.int64],
    column_weight: NDArray[np.float32],
    area: np.float32,
    out: NDArray[np.uint8],
) -> None:
    """Average without compiled code: a few lines at a time, tap by tap, with the same sums."""
    step = max(1, _LINE_VALUES // source[0].size)
    for top in range(0, len(out), step):
        part = slice(top, top + step)
        lines = np.zeros((len(row_start[part]), *source.shape[1:]), np.float32)
        for k in range(row_weight.shape[1]):
            lines += row_weight[part, k, None, None] * source[row_start[part] + k]
        means = np.zeros(out[part].shape, np.float32)
        for k in range(column_weight.shape[1]):
            means += column_weight[:, k, None] * lines[:, column_start + k]
        out[part] = means / area + np.float32(0.5)


@cache
def _load_loops() -> ModuleType:
    with loading():
        from wsiseg.slide import resample_loops
    return resample_loops


def _spread(axis: AxisWeights) -> NDArray[np.float32]:
    """Place weights at the first value of each output pixel in a line of RGB: ``(taps, 3 * n)``."""
    first = axis.start - axis.first
    spread = np.zeros((axis.weight.shape[1], axis.stop - axis.first, 3), np.float32)
    spread[:, first] = axis.weight.T[..., None]
    return spread.reshape(len(spread), -1)


def _snap(factor: float) -> float:
    rounded = round(factor)
    return float(rounded) if rounded >= 1 and abs(factor - rounded) < _SNAP else factor
