"""How many times smaller a level is: a whole number where only its size is rounded."""

from __future__ import annotations

import math

from wsiseg.geometry import Size

__all__ = ["covers", "find_downsample"]

_NOISE = 1e-9


def find_downsample(size: Size, level: Size) -> tuple[float, float]:
    """Level-0 pixels per pixel of a level, along x and y.

    A whole ``n`` where both sides of `level` are ``size / n`` rounded down, up or to the nearest:
    its pixels then are means of ``n x n``, and lack or exceed the slide at the far edges by less
    than one of them. Else the ratio of the sizes, per axis.

    Of several that fit a tiny level, one that divides the slide is taken, else a power of two,
    else the one nearest to the ratio of the longer sides.
    """
    ratio = max(size) / level[size.index(max(size))]
    fits = [n for n in _near(ratio, min(max(size), max(level))) if _fits(size, level, n)]
    if not fits:
        return size.width / level.width, size.height / level.height

    def rank(n: int) -> tuple[bool, bool, float]:
        return not _divides(size, level, n), n & (n - 1) != 0, abs(n - ratio)

    best = min(fits, key=rank)
    return float(best), float(best)


def covers(size: Size, level: Size, downsample: tuple[float, float]) -> bool:
    """Whether the level's pixels end where the slide ends, along both axes."""
    return all(
        abs(pixels * down - length) < _NOISE * length
        for length, pixels, down in zip(size, level, downsample, strict=True)
    )


def _near(ratio: float, pixels: int) -> range:
    """Every whole number that rounds a side to `pixels`, and some beside them."""
    low = math.floor(ratio * pixels / (pixels + 1))
    high = math.ceil(ratio * pixels / max(1, pixels - 1)) if pixels > 1 else math.ceil(2 * ratio)
    return range(max(1, low), high + 1)


def _fits(size: Size, level: Size, n: int) -> bool:
    sides = zip(size, level, strict=True)
    return all(length // n <= pixels <= -(-length // n) for length, pixels in sides)


def _divides(size: Size, level: Size, n: int) -> bool:
    return all(length == pixels * n for length, pixels in zip(size, level, strict=True))
