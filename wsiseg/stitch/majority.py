"""A majority filter that removes specks and ragged edges that no pathologist would draw."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsiseg.kernels import kernel

__all__ = ["majority_filter"]


def majority_filter(labels: NDArray[np.uint8], radius: int, classes: int) -> NDArray[np.uint8]:
    """Return the most frequent label in the square of `radius` pixels around each pixel.

    A pixel keeps its label unless another is more frequent; of several, the smallest wins. A pixel
    depends only on its square, so a box read with a margin of `radius` gives the same as the whole
    array, cropped. The square is cut at the array's edge.

    Parameters
    ----------
    labels
        ``(H, W)`` uint8 below `classes`.
    radius
        Pixels to each side; 0 returns a copy.
    classes
        Number of labels.
    """
    if not radius:
        return labels.copy()
    # Twice the count plus one must fit; narrow integers vectorise better.
    counter = np.uint16 if 2 * (2 * radius + 1) ** 2 + 1 < 1 << 16 else np.int32
    lines = np.zeros((4, labels.shape[1] + 2 * radius), counter)
    columns = np.zeros((classes, labels.shape[1] + 2 * radius), counter)
    out: NDArray[np.uint8] = _filter(np.ascontiguousarray(labels), radius, columns, lines)
    return out


@kernel
def _filter(labels, radius, columns, lines):  # type: ignore[no-untyped-def]  # numba infers the types
    """`columns` counts each class in the rows around y, by column, with a margin of `radius`."""
    height, width = labels.shape
    out = np.zeros_like(labels)
    counts, best = lines[2, :width], lines[3, :width]
    for y in range(min(radius, height)):
        _count_row(labels[y], columns, radius, 1)
    for y in range(height):
        if y + radius < height:
            _count_row(labels[y + radius], columns, radius, 1)
        if y - radius - 1 >= 0:
            _count_row(labels[y - radius - 1], columns, radius, -1)
        best[:] = 0
        for k in range(columns.shape[0]):
            _sum_windows(columns[k], 2 * radius + 1, lines, counts)
            own, line, label = labels[y], out[y], np.uint8(k)
            for x in range(width):  # of equals the pixel's own label wins, then the smallest
                counts[x] = 2 * counts[x] + (own[x] == label)
            for x in range(width):
                score, top, previous = counts[x], best[x], line[x]
                line[x] = label if score > top else previous
                best[x] = score if score > top else top
    return out


@kernel
def _count_row(labels, columns, radius, step):  # type: ignore[no-untyped-def]  # numba infers the types
    for k in range(columns.shape[0]):
        line, label = columns[k, radius : radius + labels.size], np.uint8(k)
        for x in range(labels.size):
            line[x] += step * (labels[x] == label)


@kernel
def _sum_windows(values, side, lines, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """Write sums of `side` neighbours to `out`, built from sums of 1, 2, 4 ... of them."""
    for x in range(out.size):
        out[x] = 0
    powers, offset, bit = values, 0, 0
    while side >> bit:
        if side >> bit & 1:
            shifted = powers[offset:]
            for x in range(out.size):
                out[x] += shifted[x]
            offset += 1 << bit
        # Between two buffers: the compiler vectorises only if nothing overlaps.
        shifted, doubled = powers[1 << bit :], lines[bit & 1]
        for x in range(shifted.size):
            doubled[x] = powers[x] + shifted[x]
        powers, bit = doubled, bit + 1
