"""Connected pieces of a mask, with NumPy only: for most masks, loading numba would take longer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["drop_small"]

Mask = NDArray[np.bool_]
Index = NDArray[np.int64]


def drop_small(mask: Mask, area: float) -> Mask:
    """Return `mask` ``(h, w)`` bool without 4-connected pieces of fewer than `area` pixels."""
    width = mask.shape[1]
    starts, stops = _find_runs(mask)
    pieces = _join(len(starts), *_touching(starts, stops, width + 1))
    areas = np.bincount(pieces, stops - starts, len(starts))
    small = areas[pieces] < area
    out = np.array(mask, order="C")
    out.reshape(-1)[_list_pixels(starts[small], stops[small], width)] = False
    return out


def _find_runs(mask: Mask) -> tuple[Index, Index]:
    """Find where runs of set pixels start and stop, in lines that are one pixel longer."""
    height, width = mask.shape
    flat = np.zeros(1 + height * (width + 1), bool)
    flat[1:].reshape(height, width + 1)[:, :width] = mask
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return changes[::2], changes[1::2]


def _list_pixels(starts: Index, stops: Index, width: int) -> Index:
    """List the pixels of runs in a flat mask whose lines have no additional pixel."""
    lengths = stops - starts
    first = starts - starts // (width + 1)
    return _list_ranges(first, lengths)


def _touching(starts: Index, stops: Index, line: int) -> tuple[Index, Index]:
    """Find pairs of runs that touch: those of a line and of the next, `line` pixels further on."""
    first = np.searchsorted(stops, starts + line, "right")
    counts = np.searchsorted(starts, stops + line) - first
    return np.repeat(np.arange(len(starts)), counts), _list_ranges(first, counts)


def _list_ranges(first: Index, counts: Index) -> Index:
    """Concatenate ranges of `counts` numbers, each beginning with its `first`."""
    steps: Index = np.repeat(first - np.cumsum(counts) + counts, counts)
    return np.arange(len(steps)) + steps


def _join(count: int, one: Index, two: Index) -> Index:
    """Return the piece of each run, ``(count,)``, named by its first; `one` and `two` are joined.

    In each round, every root is attached to the smallest one that it touches, so that few rounds
    are needed even for winding pieces.
    """
    root = np.arange(count)
    while True:
        first, second = root[one], root[two]
        apart = first != second
        if not apart.any():
            return root
        one, two, first, second = (ends[apart] for ends in (one, two, first, second))
        np.minimum.at(root, np.maximum(first, second), np.minimum(first, second))
        while (root[root] != root).any():
            root = root[root]
