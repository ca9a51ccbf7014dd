"""Find how many times smaller a level is: an integer if only its size was rounded."""

from __future__ import annotations

from functools import lru_cache

from wsiseg.geometry import Size

__all__ = ["covers", "find_downsample", "is_level"]

_NOISE = 1e-9
_MAX_SKEW = 1.1
"""Ratio of the two axes' downsamples beyond which an image is not a level."""


@lru_cache(256)
def find_downsample(size: Size, level: Size) -> tuple[float, float]:
    """Return the level-0 pixels per pixel of a level, along x and y.

    An integer ``n`` if both sides of `level` are ``size / n`` rounded down, up or to the nearest:
    its pixels are then means of ``n x n``, and at the far edges the level is less than one of its
    pixels shorter or longer than the slide. Otherwise the ratio of the sizes, per axis.

    If several integers fit a tiny level, one that divides the slide is preferred, then a power of
    two, then the one nearest to the ratio of the longer sides.
    """
    low, high = _fitting(size, level)
    if low > high:
        return size.width / level.width, size.height / level.height
    ratio = max(size) / level[size.index(max(size))]
    if all(length == pixels * round(ratio) for length, pixels in zip(size, level, strict=True)):
        best = round(ratio)
    else:
        powers = [2**i for i in range(low.bit_length() - 1, high.bit_length())]
        fits = [n for n in powers if low <= n <= high] or [min(max(round(ratio), low), high)]
        best = min(fits, key=lambda n: abs(n - ratio))
    return float(best), float(best)


def is_level(downsample: tuple[float, float]) -> bool:
    """Whether an image of this downsample has the slide's shape, unlike a label stored as a level.

    For a level of few pixels, rounding may explain another shape; `find_downsample` then returns an
    integer.
    """
    return max(downsample) <= _MAX_SKEW * min(downsample)


def covers(size: Size, level: Size, downsample: tuple[float, float]) -> bool:
    """Whether the level ends where the slide ends, along both axes."""
    return all(
        abs(pixels * down - length) < _NOISE * length
        for length, pixels, down in zip(size, level, downsample, strict=True)
    )


def _fitting(size: Size, level: Size) -> tuple[int, int]:
    """Return the smallest and the largest integer that round both sides of `size` to `level`."""
    low, high = 1, max(size)
    for length, pixels in zip(size, level, strict=True):
        low = max(low, length // (pixels + 1) + 1)  # length // n <= pixels
        if pixels > 1:
            high = min(high, -(-length // (pixels - 1)) - 1)  # pixels <= ceil(length / n)
    return low, high
