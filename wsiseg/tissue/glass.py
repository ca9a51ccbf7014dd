"""Find the colour of a slide's bare glass, with NumPy only, as in `pieces.py`."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from wsiseg.tissue.neighbours import around

__all__ = ["find_glass"]

Image = NDArray[np.uint8]

_STRIP_PIXELS = 2**16
"""Number of pixels processed at a time: the results stay in the processor's cache."""

_WHITE = 253
"""Pixels this bright in every channel were not scanned, or are glass of a balanced scanner."""
_MIN_BRIGHTNESS = 190
"""No channel of scanned glass is darker than this."""
_MAX_TINT = 15
"""Largest difference between the channels of scanned glass, whatever the lamp."""
_MAX_PINK = 6
"""If green is below both red and blue by more than this, it is pale tissue, not glass."""
_MAX_RANGE = 2
"""Largest difference of brightness within 3 x 3 pixels of glass; tissue has texture."""
_MIN_SHARE = 0.01
"""Share of the slide that must look like glass; otherwise glass is assumed to be white."""


def find_glass(image: Image) -> NDArray[np.float64]:
    """Return the colour ``(3,)`` of bare glass in `image` ``(h, w, 3)``; white if there is none."""
    counts = np.zeros((256, 3, 256), np.int64)
    _count_glass(image, counts)
    per_darkest = counts[:, 0].sum(1)
    mode = int(np.convolve(per_darkest, [1, 1, 1], "same").argmax())
    near = counts[max(0, mode - 3) : mode + 4].sum(0)
    if near[0].sum() / math.prod(image.shape[:2]) < _MIN_SHARE:
        return np.full(3, 255.0)
    return np.array([_median(channel) for channel in near])


def _median(counts: NDArray[np.int64]) -> float:
    """Return the median of the values 0, 1, ..., each of which occurs ``counts[value]`` times."""
    cumulative = counts.cumsum()
    middle = np.array([(cumulative[-1] - 1) // 2, cumulative[-1] // 2])
    return float(np.searchsorted(cumulative, middle, "right").mean())


def _count_glass(image: Image, counts: NDArray[np.int64]) -> None:
    """Count the glass in the smoothed `image`: ``counts[darkest, channel, value]``."""
    height, width = image.shape[:2]
    step = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, step):
        _count_strip(image, top, min(top + step, height), counts)


def _count_strip(image: Image, top: int, bottom: int, counts: NDArray[np.int64]) -> None:
    """Count the glass in the lines ``top .. bottom``."""
    first, last = max(top - 1, 0), min(bottom + 1, len(image))
    smooth = _smooth(image, first, last)
    darkest = smooth.min(0)
    glass = (darkest >= _MIN_BRIGHTNESS) & (darkest < _WHITE)
    glass &= smooth.max(0) - darkest <= _MAX_TINT
    red, green, blue = smooth
    glass &= np.minimum(red, blue) <= green.astype(np.uint16) + _MAX_PINK
    glass &= around(np.maximum, darkest) - around(np.minimum, darkest) <= _MAX_RANGE
    inside = slice(top - first, bottom - first)
    glass = glass[inside]
    rows = darkest[inside][glass].astype(np.int64) << 8
    for index, channel in enumerate(smooth[:, inside]):
        pairs = np.bincount(rows + channel[glass], minlength=1 << 16)
        counts[:, index] += pairs.reshape(256, 256)


def _smooth(image: Image, first: int, last: int) -> Image:
    """Average 3 x 3 pixels, rounding down along each axis; the image's edge is repeated outside.

    Returns ``(3, last - first, w)`` uint8: separate planes are several times as fast as interleaved
    colours.
    """
    lines = image[np.clip(np.arange(first - 1, last + 1), 0, len(image) - 1)]
    planes = lines.transpose(2, 0, 1).astype(np.uint16, order="C")
    means = (planes[:, :-2] + planes[:, 1:-1] + planes[:, 2:]) // 3
    means = np.pad(means, ((0, 0), (0, 0), (1, 1)), "edge")
    smooth: Image = (means[..., :-2] + means[..., 1:-1] + means[..., 2:]) // 3
    return smooth.astype(np.uint8)
