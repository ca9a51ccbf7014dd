"""A majority filter: takes away specks and ragged edges that no pathologist would draw."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["majority_filter"]


def majority_filter(labels: NDArray[np.uint8], radius: int, classes: int) -> NDArray[np.uint8]:
    """The most frequent label in the square of `radius` pixels about each pixel.

    A pixel keeps its label where no other is more frequent; among others, the smallest wins. A
    pixel depends on its square only, so a box read with a margin of `radius` equals the crop of
    the whole. The square is cut at the array's edge.

    Parameters
    ----------
    labels
        ``(H, W)`` uint8 below `classes`.
    radius
        Pixels to each side; 0 returns a copy.
    classes
        Number of labels.
    """
    return _filter(np.ascontiguousarray(labels), radius, classes) if radius else labels.copy()


@numba.njit(nogil=True, cache=True)
def _filter(labels, radius, classes):  # type: ignore[no-untyped-def]  # numba infers the types
    height, width = labels.shape
    out = np.empty_like(labels)
    columns = np.zeros((width, classes), np.int32)  # counts in the rows about y, by column
    counts = np.zeros(classes, np.int32)
    for y in range(min(radius, height)):
        for x in range(width):
            columns[x, labels[y, x]] += 1
    for y in range(height):
        if y + radius < height:
            for x in range(width):
                columns[x, labels[y + radius, x]] += 1
        if y - radius - 1 >= 0:
            for x in range(width):
                columns[x, labels[y - radius - 1, x]] -= 1
        counts[:] = 0
        for x in range(min(radius, width)):
            for k in range(classes):
                counts[k] += columns[x, k]
        for x in range(width):
            if x + radius < width:
                for k in range(classes):
                    counts[k] += columns[x + radius, k]
            if x - radius - 1 >= 0:
                for k in range(classes):
                    counts[k] -= columns[x - radius - 1, k]
            best = labels[y, x]
            for k in range(classes):
                if counts[k] > counts[best]:
                    best = np.uint8(k)
            out[y, x] = best
    return out
