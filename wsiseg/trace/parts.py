"""What of its components one block knows: their labels, their sums, where they leave the block."""

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
    """Component of each pixel along a block's edges, margin included, ``(n,)`` int32."""

    above: NDArray[np.int32]
    left: NDArray[np.int32]
    below: NDArray[np.int32]
    right: NDArray[np.int32]


class Parts(NamedTuple):
    """The 4-connected components of one block, background's too."""

    labels: NDArray[np.uint8]
    """``(C,)`` label of each component."""
    sums: NDArray[np.int64]
    """``(C, 2)`` pixels and sum of their confidence, over the block's own pixels."""
    edges: Edges
    """What lies along the block's edges, to unite components with the neighbours'."""


def margin_box(square: Box, raster: Box) -> Box:
    """What a block must see: its square, one row above, one column to the left.

    At the raster's far edges also one row and column beyond, as the last vertices lie there.
    """
    right = square.right + (square.right == raster.right)
    bottom = square.bottom + (square.bottom == raster.bottom)
    return Box(square.x - 1, square.y - 1, right - square.x + 1, bottom - square.y + 1)


def compiled_for(
    labels: NDArray[np.uint8], confidence: NDArray[np.uint8] | None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Both arrays as the kernels are compiled for; no confidence is one of no columns."""
    # Numba compiles anew for arrays that are not contiguous or not writable.
    scores = labels[:, :0] if confidence is None else confidence
    return np.require(labels, requirements=("C", "W")), np.require(scores, requirements=("C", "W"))


def count_parts(runs: NDArray[np.int32], along: Sequence[NDArray[Any]]) -> Parts:
    """Number the components of joined runs; `along` holds the runs of the `Edges`."""
    count = number_roots(runs[:, 0])
    labels, sums = sum_runs(runs, count)
    return Parts(labels, sums, Edges(*(runs[line, 0] for line in along)))
