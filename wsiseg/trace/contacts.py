"""Find which components of one block touch, and along how many pixel edges."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsiseg.kernels import kernel
from wsiseg.trace.parts import Parts, compiled_for, count_parts
from wsiseg.trace.runs import add_runs, find_ends, grow, paint_runs, spread_runs
from wsiseg.trace.sets import join_roots, number_roots

__all__ = ["Contacts", "find_contacts", "paint_block"]


class Contacts(NamedTuple):
    """A block's components, and the contacts of those that may be small."""

    parts: Parts
    pairs: NDArray[np.int32]
    """``(E, 2)`` components that touch, the lower number first; each pair once."""
    lengths: NDArray[np.int64]
    """``(E,)`` number of pixel edges that they share; an edge between blocks counts in one only."""


def find_contacts(labels: NDArray[np.uint8], limits: NDArray[np.float64]) -> Contacts:
    """Find the components and contacts of one block.

    Parameters
    ----------
    labels
        ``(h + 1, w + 1)`` uint8 of `margin_box`.
    limits
        ``(256,)`` pixels by label: contacts are kept if one of the two has fewer in this block.
    """
    labels, scores = compiled_for(labels, None)
    runs, n_runs, touching, n_touching, *edge_runs = _scan_contacts(labels, scores)
    runs, touching = runs[:n_runs], touching[:n_touching]
    parts = count_parts(runs, edge_runs)
    small = parts.sums[:, 0] < limits[parts.labels]
    pairs, lengths = runs[touching[:, :2], 0], touching[:, 2]
    kept = small[pairs].any(axis=1)
    return Contacts(parts, *sum_pairs(pairs[kept], lengths[kept]))


def sum_pairs(
    pairs: NDArray[np.int32], lengths: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return each unordered pair once, ``(E, 2)``, sorted, and its summed length ``(E,)`` int64."""
    low, high = np.minimum(*pairs.T), np.maximum(*pairs.T)
    order = np.lexsort((high, low))
    low, high = low[order], high[order]
    first = np.ones(len(order), bool)
    first[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    starts = np.flatnonzero(first)
    if not len(starts):
        return np.stack([low, high], axis=1), np.zeros(0, int)
    sums = np.add.reduceat(lengths[order].astype(np.int64), starts)
    return np.stack([low[starts], high[starts]], axis=1), sums


def paint_block(labels: NDArray[np.uint8], new_labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Copy a block's labels, including the margin, with a new label for each component.

    Components are numbered as in the `Contacts` of the same labels.
    """
    labels, scores = compiled_for(labels, None)
    runs, count, *_ = _scan_contacts(labels, scores)
    number_roots(runs[:count, 0])
    painted: NDArray[np.uint8] = paint_runs(labels, runs, new_labels)
    return painted


@kernel
def _scan_contacts(labels, scores):  # type: ignore[no-untyped-def]  # numba infers the types
    """Return joined runs and (run, run, shared edges) of every contact, each with its row count."""
    height, width = labels.shape
    runs, touching = np.empty((2 * width, 4), np.int32), np.empty((8 * width, 3), np.int32)
    to_left, to_right = np.empty(height, np.int32), np.empty(height, np.int32)
    ends, ends_below = np.empty(width, np.int32), np.empty(width, np.int32)
    first, touched = 0, 0
    count = find_ends(labels[0], ends)
    add_runs(labels[0], scores[0], ends, count, False, runs, first)
    above = spread_runs(ends, count, first)
    to_left[0], to_right[0] = first, first + count - 1
    for i in range(1, height):
        count_below, first_below = find_ends(labels[i], ends_below), first + count
        runs = grow(runs, first_below, count_below)
        add_runs(labels[i], scores[i], ends_below, count_below, True, runs, first_below)
        touching = grow(touching, touched, count + 2 * count_below)
        u, v, start = first, first_below, 1
        while True:
            end, end_below = ends[u - first], ends_below[v - first_below]
            stop = min(end, end_below)
            if runs[u, 1] == runs[v, 1]:
                join_roots(runs[:, 0], u, v)
            elif stop > start:
                touching[touched, 0], touching[touched, 1], touching[touched, 2] = (
                    u,
                    v,
                    stop - start,
                )
                touched += 1
            if stop == width:
                break
            start = max(stop, 1)
            if end_below == stop:
                touched = _note(touching, touched, v, v + 1, 1)
            u += end == stop
            v += end_below == stop
        first, count, ends, ends_below = first_below, count_below, ends_below, ends
        to_left[i], to_right[i] = first, first + count - 1
    below = spread_runs(ends, count, first)
    return runs, first + count, touching, touched, above, to_left, below, to_right


@kernel
def _note(touching, touched, one, two, shared):  # type: ignore[no-untyped-def]  # numba infers the types
    touching[touched, 0], touching[touched, 1], touching[touched, 2] = one, two, shared
    return touched + 1
