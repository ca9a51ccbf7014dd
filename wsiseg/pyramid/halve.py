"""Halve labels and confidence, without subsampling, which loses thin strands."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from wsiseg.compiling import loading

__all__ = ["halve_confidence", "halve_labels"]


def halve_labels(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the most frequent label of each 2 x 2 square; on ties the smaller (background is 255).

    ``(H, W)`` uint8 to ``(ceil(H / 2), ceil(W / 2))`` uint8; squares are cut at the edge.
    """
    even = _even(labels)
    out = np.empty((even.shape[0] // 2, even.shape[1] // 2), np.uint8)
    _load_loops().vote(even[::2], even[1::2], out)
    return out


def halve_confidence(confidence: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Average each 2 x 2 square, rounding half up; shapes are as in `halve_labels`, uint8."""
    even = _even(confidence)
    out = np.empty((even.shape[0] // 2, even.shape[1] // 2), np.uint8)
    _load_loops().mean(even[::2], even[1::2], out)
    return out


def _even(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeat the last row or column of odd sides, which changes neither vote nor mean."""
    height, width = pixels.shape
    if height % 2 or width % 2:
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2)), mode="edge")
    return np.ascontiguousarray(pixels)


@cache
def _load_loops() -> ModuleType:
    with loading():
        from wsiseg.pyramid import halve_loops
    return halve_loops
