"""The compiled loops of averaging by any factor.

They run over neighbours in memory, many at a time; a loop over output pixels, which jumps from one
to the next, costs several times as much. So sums are taken at every place of a line, also where no
output pixel starts, and those that are wanted are picked last.
"""

from __future__ import annotations

import numpy as np

from wsiseg.kernels import kernel
from wsiseg.shrink.loops import move

__all__ = ["average", "average_three"]


@kernel(error_model="numpy")
def average_three(source, row_start, row_weight, column_start, spread, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """`average` for three taps; `spread` has the columns' weights, divided by the area."""
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


@kernel(error_model="numpy")
def average(  # type: ignore[no-untyped-def]  # numba infers the types
    source, row_start, row_weight, column_start, column_weight, area, out
):
    """Weighted means into `out`; the order of the sums is that of the taps."""
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
