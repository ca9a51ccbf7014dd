"""How many times smaller a level is: a whole number where only its size is rounded."""

from __future__ import annotations

from functools import lru_cache

from wsiseg.geometry import Size

__all__ = ["covers", "find_downsample", "is_level"]

_NOISE = 1e-9
_SKEWED = 1.1
"""Factor between both axes' downsamples beyond which a picture is no level."""


@lru_cache(256)
def find_downsample(size: Size, level: Size) -> tuple[float, float]:
    """Level-0 pixels per pixel of a level, along x and y.

    A whole ``n`` where both sides of `level` are ``size / n`` rounded down, up or to the nearest:
    its pixels then are means of ``n x n``, and lack or exceed the slide at the far edges by less
    than one of them. Else the ratio of the sizes, per axis.

    Of several that fit a tiny level, one that divides the slide is taken, else a power of two,
    else the one nearest to the ratio of the longer sides.
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
    """Whether a picture shrunk so has the slide's shape; a label flagged as a level has not.

    Of a level of few pixels, rounding explains another shape: `find_downsample` gives a whole
    number then.
    """
    return max(downsample) <= _SKEWED * min(downsample)


def covers(size: Size, level: Size, downsample: tuple[float, float]) -> bool:
    """Whether the level's pixels end where the slide ends, along both axes."""
    return all(
        abs(pixels * down - length) < _NOISE * length
        for length, pixels, down in zip(size, level, downsample, strict=True)
    )


def _fitting(size: Size, level: Size) -> tuple[int, int]:
    """The least and the largest whole number that rounds both sides of `size` to `level`."""
    low, high = 1, max(size)
    for length, pixels in zip(size, level, strict=True):
        low = max(low, length // (pixels + 1) + 1)  # length // n <= pixels
        if pixels > 1:
            high = min(high, -(-length // (pixels - 1)) - 1)  # pixels <= ceil(length / n)
    return low, high
