"""Downsample by integer factors: the mean of each square of pixels."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsiseg.compiling import loading, pays

__all__ = ["FACTORS", "are_rows", "mean_squares", "shrink_mean"]

FACTORS = (2, 4, 8, 16)
"""Powers of two whose sums fit in 16 bits."""


def shrink_mean(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Average each ``factor x factor`` square, rounding half up; squares are cut at the edge.

    ``(H, W, 3)`` uint8 to ``(ceil(H / factor), ceil(W / factor), 3)`` uint8; `factor` is one of
    `FACTORS`.
    """
    height, width, channels = pixels.shape
    rows, cols = height // factor, width // factor
    bottom, right = rows * factor, cols * factor
    if (bottom, right) == (height, width):
        return mean_squares(pixels, factor)
    out = np.empty((-(-height // factor), -(-width // factor), channels), np.uint8)
    mean_squares(pixels[:bottom, :right], factor, out[:rows, :cols])
    if bottom < height:
        out[rows:] = _mean_cut(pixels[bottom:], factor)
    if right < width:
        out[:, cols:] = _mean_cut(pixels[:, right:], factor)
    return out


def mean_squares(
    pixels: NDArray[np.uint8], factor: int, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """`shrink_mean` for sides that are multiples of `factor`; `out` may be any view."""
    pixels = np.ascontiguousarray(pixels)
    if out is None:
        out = np.empty((pixels.shape[0] // factor, pixels.shape[1] // factor, 3), np.uint8)
    if not are_rows(out):
        out[:] = mean_squares(pixels, factor)
    elif out.size and pays(pixels.size):
        _load_loops()[factor](pixels, out)
    elif out.size:
        out[:] = _mean_whole(pixels, factor)
    return out


def are_rows(pixels: NDArray[np.uint8]) -> bool:
    """Whether the bytes of each row are contiguous, as `loops.move` requires."""
    return pixels.strides[1:] == (3, 1) or pixels.shape[1] == 0


def _mean_cut(strip: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Average a narrow edge strip, whose cut squares are divided by their true area."""
    sums = strip.astype(np.uint32)
    areas = np.ones((1, 1, 1), np.uint32)
    for axis in (0, 1):
        starts = np.arange(0, strip.shape[axis], factor)
        sums = np.add.reduceat(sums, starts, axis)
        counts = np.diff(np.append(starts, strip.shape[axis])).astype(np.uint32)
        areas = areas * np.expand_dims(counts, (1 - axis, 2))
    return np.asarray((sums + areas // 2) // areas, np.uint8)


def _mean_whole(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Average squares with NumPy, without compiled code."""
    height, width, channels = pixels.shape
    sums = np.full((height // factor, width // factor, channels), factor * factor // 2, np.uint16)
    lines = pixels.reshape(len(sums), factor, -1).sum(1, dtype=np.uint16)
    lines = lines.reshape(len(sums), width, channels)
    for first in range(factor):
        sums += lines[:, first::factor]
    return (sums // (factor * factor)).astype(np.uint8)


@cache
def _load_loops() -> dict[int, Any]:
    with loading():
        from wsiseg.shrink.loops import LOOPS
    return LOOPS
