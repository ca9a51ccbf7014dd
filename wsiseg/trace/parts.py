"""The components of one block: their labels, their sums, and where they leave the block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsiseg.geometry import Box
from wsiseg.trace.runs import sum_runs
from wsiseg.trace.sets import number_roots

__all__ = ["Edges", "Parts", "compiled_for", "count_parts", "margin_box"]


class Edges(NamedTuple):
    """Component of each pixel along a block's edges, including the margin, ``(n,)`` int32."""

    above: NDArray[np.int32]
    left: NDArray[np.int32]
    below: NDArray[np.int32]
    right: NDArray[np.int32]


class Parts(NamedTuple):
    """The 4-connected components of one block, including those of background."""

    labels: NDArray[np.uint8]
    """``(C,)`` label of each component."""
    sums: NDArray[np.int64]
    """``(C, 2)`` number of the block's own pixels, and sum of their confidence."""
    edges: Edges
    """Components along the block's edges, to unite them with those of neighbouring blocks."""


def margin_box(square: Box, raster: Box) -> Box:
    """Return the pixels that a block needs: its square, one row above and one column to the left.

    At the raster's far edges also one row or column beyond, where the last vertices lie.
    """
    right = square.right + (square.right == raster.right)
    bottom = square.bottom + (square.bottom == raster.bottom)
    return Box(square.x - 1, square.y - 1, right - square.x + 1, bottom - square.y + 1)


def compiled_for(
    labels: NDArray[np.uint8], confidence: NDArray[np.uint8] | None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return both arrays as the kernels expect them; missing confidence has no columns."""
    # numba compiles again for arrays that are not contiguous or not writable.
    scores = labels[:, :0] if confidence is None else confidence
    return np.require(labels, requirements=("C", "W")), np.require(scores, requirements=("C", "W"))


def count_parts(runs: NDArray[np.int32], edge_runs: Sequence[NDArray[Any]]) -> Parts:
    """Number the components of joined runs; `edge_runs` holds the runs along the `Edges`."""
    count = number_roots(runs[:, 0])
    labels, sums = sum_runs(runs, count)
    return Parts(labels, sums, Edges(*(runs[line, 0] for line in edge_runs)))
