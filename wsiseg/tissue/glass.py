"""The colour of a slide's bare glass. NumPy alone, as in `pieces.py`."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from wsiseg.tissue.neighbours import around

__all__ = ["find_glass"]

Image = NDArray[np.uint8]

_STRIP_PIXELS = 2**16
"""Pixels that are looked at at once: what is kept of them stays in the processor's cache."""

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


def find_glass(image: Image) -> NDArray[np.float64]:
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


def _count_glass(image: Image, counts: NDArray[np.int64]) -> None:
    """Count the glass in the smoothed `image`: ``counts[darkest, channel, value]``."""
    height, width = image.shape[:2]
    step = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, step):
        _count_strip(image, top, min(top + step, height), counts)


def _count_strip(image: Image, top: int, bottom: int, counts: NDArray[np.int64]) -> None:
    """The same of the lines ``top .. bottom``."""
    first, last = max(top - 1, 0), min(bottom + 1, len(image))
    smooth = _smooth(image, first, last)
    least = smooth.min(0)
    glass = (least >= _DARKEST) & (least < _WHITE) & (smooth.max(0) - least <= _TINT)
    red, green, blue = smooth
    glass &= np.minimum(red, blue) <= green.astype(np.uint16) + _PINK
    glass &= around(np.maximum, least) - around(np.minimum, least) <= _RANGE
    inside = slice(top - first, bottom - first)
    glass = glass[inside]
    rows = least[inside][glass].astype(np.int64) << 8
    for number, channel in enumerate(smooth[:, inside]):
        places = np.bincount(rows + channel[glass], minlength=1 << 16)
        counts[:, number] += places.reshape(256, 256)


def _smooth(image: Image, first: int, last: int) -> Image:
    """Means over 3 x 3 pixels, rounded down each way; beyond the frame its edge goes on.

    ``(3, last - first, w)`` uint8: whole planes are several times as fast as mixed colours.
    """
    lines = image[np.clip(np.arange(first - 1, last + 1), 0, len(image) - 1)]
    planes = lines.transpose(2, 0, 1).astype(np.uint16, order="C")
    between = (planes[:, :-2] + planes[:, 1:-1] + planes[:, 2:]) // 3
    between = np.pad(between, ((0, 0), (0, 0), (1, 1)), "edge")
    smooth: Image = (between[..., :-2] + between[..., 1:-1] + between[..., 2:]) // 3
    return smooth.astype(np.uint8)
