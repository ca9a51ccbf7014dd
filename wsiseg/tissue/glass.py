"""The colour of a slide's bare glass."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["find_glass"]

_WHITE = 253
"""Pixels this bright in every channel were never scanned, or are glass of a balanced scanner."""
_DARKEST = 190
"""No channel of scanned glass is darker than this."""
_TINT = 15
"""Largest difference between the channels of scanned glass, whatever the lamp."""
_PINK = 6
"""Green below both red and blue by more than this is pale tissue, not glass."""
_RANGE = 2
"""Largest difference of brightness among the 3 x 3 neighbours of glass; tissue has texture."""
_SHARE = 0.01
"""Share of the slide that must look like glass; below it, white is taken."""


def find_glass(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The colour ``(3,)`` of bare glass in `image` ``(h, w, 3)``; white where there is none."""
    counts = np.zeros((256, 3, 256), np.int64)
    _count_glass(image, counts)
    per_darkest = counts[:, 0].sum(1)
    mode = int(np.convolve(per_darkest, [1, 1, 1], "same").argmax())
    near = counts[max(0, mode - 3) : mode + 4].sum(0)
    if near[0].sum() / math.prod(image.shape[:2]) < _SHARE:
        return np.full(3, 255.0)
    return np.array([_median(channel) for channel in near])


def _median(counts: NDArray[np.int64]) -> float:
    """The median of values that occur so often."""
    below = counts.cumsum()
    middle = np.array([(below[-1] - 1) // 2, below[-1] // 2])
    return float(np.searchsorted(below, middle, "right").mean())


@njit(nogil=True, cache=True)
def _count_glass(image, counts):  # type: ignore[no-untyped-def]  # numba infers the types
    """Count the glass in the smoothed `image`: ``counts[darkest, channel, value]``.

    Line by line, three smoothed lines and the darkest channel of each being kept.
    """
    height, width = image.shape[:2]
    smooth = np.empty((3, width, 3), np.uint8)
    darkest = np.empty((3, width + 2), np.uint8)
    between = np.empty((width + 2, 3), np.uint8)
    for y in range(height + 1):
        if y < height:
            _smooth_line(image, y, between, smooth[y % 3])
            _find_darkest(smooth[y % 3], darkest[y % 3])
        if y > 0:
            above, below = max(y - 2, 0), min(y, height - 1)
            line = darkest[above % 3], darkest[(y - 1) % 3], darkest[below % 3]
            _count_line(smooth[(y - 1) % 3], line, counts)


@njit(nogil=True, cache=True)
def _smooth_line(image, y, between, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """Means over 3 x 3 pixels, rounded down each way; beyond the frame its edge goes on."""
    height, width = image.shape[:2]
    above, here, below = image[max(y - 1, 0)], image[y], image[min(y + 1, height - 1)]
    for x in range(width):
        for c in range(3):
            total = np.uint32(above[x, c]) + np.uint32(here[x, c]) + np.uint32(below[x, c])
            between[x + 1, c] = total // np.uint32(3)
    between[0], between[width + 1] = between[1], between[width]
    for x in range(width):
        for c in range(3):
            left, right = np.uint32(between[x, c]), np.uint32(between[x + 2, c])
            out[x, c] = (left + np.uint32(between[x + 1, c]) + right) // np.uint32(3)


@njit(nogil=True, cache=True)
def _find_darkest(line, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """The least of each pixel's channels, from ``out[1]`` on; its ends go on once more."""
    width = line.shape[0]
    for x in range(width):
        out[x + 1] = min(line[x, 0], line[x, 1], line[x, 2])
    out[0], out[width + 1] = out[1], out[width]


@njit(nogil=True, cache=True)
def _count_line(line, darkest, counts):  # type: ignore[no-untyped-def]  # numba infers the types
    above, here, below = darkest
    for x in range(line.shape[0]):
        least = here[x + 1]
        if not _DARKEST <= least < _WHITE:
            continue
        red, green, blue = line[x]
        if max(red, green, blue) > least + _TINT or min(red, blue) > green + _PINK:
            continue
        low, high = least, least
        for k in range(x, x + 3):
            low = min(low, above[k], here[k], below[k])
            high = max(high, above[k], here[k], below[k])
        if high - low <= _RANGE:
            counts[least, 0, red] += 1
            counts[least, 1, green] += 1
            counts[least, 2, blue] += 1
