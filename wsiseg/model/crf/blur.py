"""The blur of the lattice: six axes in one passage through memory.

Points are sorted by rows of the image. A step along an axis leads two rows on at most, so a row is
blurred along each axis as soon as the rows next to it are along the axis before: what one axis
leaves is still in the cache when the next wants it. The sums are those of axis after axis.
"""

from __future__ import annotations

import numpy as np

from wsiseg.model.crf.lanes import LANES, add_scaled, load, store
from wsiseg.model.crf.numbers import CORNERS
from wsiseg.model.crf.order import compiled

__all__ = ["blur"]

_HALF = np.float32(0.5)
_LAGS = (0, 1, 3, 5, 5, 5)
"""Rows by which each axis follows the first. An axis needs the rows that its steps lead to, and may
only overwrite what the axis before reads no more."""


@compiled
def blur(value, other, near, rows, lanes):  # type: ignore[no-untyped-def] # numba infers
    """Blur flat `(points + 1) * lanes` values along the six axes; the last point stays zero.

    The result is in `value` again; `other` is a buffer of the same size.
    """
    count = len(rows) - 1
    for leading in range(count + _LAGS[-1]):
        for axis in range(CORNERS):
            row = leading - _LAGS[axis]
            if 0 <= row < count:
                if axis % 2:
                    _blur_row(other, value, near[axis], rows[row], rows[row + 1], lanes)
                else:
                    _blur_row(value, other, near[axis], rows[row], rows[row + 1], lanes)


@compiled
def _blur_row(source, target, near, first, end, lanes):  # type: ignore[no-untyped-def] # numba infers
    for point in range(first, end):
        left, right, centre = near[point, 0] * lanes, near[point, 1] * lanes, point * lanes
        for k in range(0, lanes, LANES):
            total = add_scaled(load(source, centre + k), _HALF, load(source, left + k))
            store(target, centre + k, add_scaled(total, _HALF, load(source, right + k)))
