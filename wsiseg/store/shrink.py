"""Coarser levels of the image: the mean of each square."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["shrink_mean"]


def shrink_mean(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Mean of each ``factor x factor`` square, rounded half up; squares are cut at the edge.

    ``(H, W, C)`` uint8 to ``(ceil(H / factor), ceil(W / factor), C)`` uint8.
    """
    height, width, channels = pixels.shape
    rows, cols = -(-height // factor), -(-width // factor)
    lines = np.ascontiguousarray(pixels).reshape(height, width * channels)
    out = np.empty((rows, cols * channels), np.uint8)
    _shrink(lines, channels, factor, out)
    return out.reshape(rows, cols, channels)


@numba.njit(nogil=True, cache=True)
def _shrink(lines, channels, factor, out):  # type: ignore[no-untyped-def]  # numba infers the types
    height, length = lines.shape
    whole = length // (factor * channels)  # squares that the right edge does not cut
    sums = np.empty(length, np.uint32)
    for row in range(out.shape[0]):
        top, bottom = row * factor, min((row + 1) * factor, height)
        # Down the columns first: rows of memory, which the compiler adds many at a time.
        sums[:] = lines[top]
        for y in range(top + 1, bottom):
            for i in range(length):
                sums[i] += lines[y, i]
        area = np.uint32((bottom - top) * factor)
        for col in range(whole):
            for channel in range(channels):
                total = area // np.uint32(2)
                for i in range(factor):
                    total += sums[(col * factor + i) * channels + channel]
                out[row, col * channels + channel] = total // area
        left = whole * factor * channels
        if left < length:
            area = np.uint32((bottom - top) * (length - left) // channels)
            for channel in range(channels):
                total = area // np.uint32(2)
                for i in range(left + channel, length, channels):
                    total += sums[i]
                out[row, whole * channels + channel] = total // area
