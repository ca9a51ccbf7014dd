"""Coarser levels of labels and confidence; never by plain striding, which loses thin strands."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["halve_confidence", "halve_labels"]


def halve_labels(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The most frequent label of each 2 x 2 square; of equals the smaller (background is 255).

    ``(H, W)`` uint8 to ``(ceil(H / 2), ceil(W / 2))`` uint8; squares are cut at the edge.
    """
    even = _even(labels)
    out = np.empty((even.shape[0] // 2, even.shape[1] // 2), np.uint8)
    _vote(even[::2], even[1::2], out)
    return out


def halve_confidence(confidence: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mean of each 2 x 2 square, rounded half up: ``(H, W)`` to half of it, rounded up, uint8."""
    even = _even(confidence)
    out = np.empty((even.shape[0] // 2, even.shape[1] // 2), np.uint8)
    _mean(even[::2], even[1::2], out)
    return out


def _even(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The last row and column doubled where they are odd: neither vote nor mean sees it."""
    height, width = pixels.shape
    if height % 2 or width % 2:
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2)), mode="edge")
    return np.ascontiguousarray(pixels)


@numba.njit(nogil=True, cache=True)
def _vote(upper, lower, out):  # type: ignore[no-untyped-def]  # numba infers the types
    for y in range(out.shape[0]):
        top, bottom, line = upper[y], lower[y], out[y]
        for x in range(len(line)):
            a, b, c, d = top[2 * x], top[2 * x + 1], bottom[2 * x], bottom[2 * x + 1]
            # Sorted without a branch, so that the compiler does many squares at a time; the first
            # two that are equal then have it, and if none are, the smallest.
            a, b = (a if a < b else b), (b if a < b else a)
            c, d = (c if c < d else d), (d if c < d else c)
            a, c = (a if a < c else c), (c if a < c else a)
            b, d = (b if b < d else d), (d if b < d else b)
            b, c = (b if b < c else c), (c if b < c else b)
            best = c if c == d else a
            best = b if b == c else best
            line[x] = a if a == b else best


@numba.njit(nogil=True, cache=True)
def _mean(upper, lower, out):  # type: ignore[no-untyped-def]  # numba infers the types
    for y in range(out.shape[0]):
        top, bottom, line = upper[y], lower[y], out[y]
        for x in range(len(line)):
            total = top[2 * x] + top[2 * x + 1] + bottom[2 * x] + bottom[2 * x + 1]
            line[x] = (total + 2) >> 2
