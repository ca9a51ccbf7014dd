"""The connected pieces of a mask."""

from __future__ import annotations

import numpy as np
from numba import njit

from wsiseg.trace.sets import find_root, join_roots

__all__ = ["drop_small"]


@njit(nogil=True, cache=True)
def drop_small(mask, area):  # type: ignore[no-untyped-def]  # numba infers the types
    """`mask` ``(h, w)`` bool without its 4-connected pieces of fewer than `area` pixels."""
    spans, stops = _find_spans(mask)
    parent = np.arange(len(spans), dtype=np.int32)
    for y in range(1, len(stops)):
        _join_lines(spans, parent, stops[y - 2] if y > 1 else 0, stops[y - 1], stops[y])
    areas = np.zeros(len(spans), np.int64)
    for i in range(len(spans)):
        areas[find_root(parent, i)] += spans[i, 1] - spans[i, 0]
    out = np.zeros(mask.shape, np.bool_)
    for y in range(len(stops)):
        for i in range(stops[y - 1] if y else 0, stops[y]):
            if areas[find_root(parent, i)] >= area:
                out[y, spans[i, 0] : spans[i, 1]] = True
    return out


@njit(nogil=True, cache=True)
def _find_spans(mask):  # type: ignore[no-untyped-def]  # numba infers the types
    """Start and end of every run of set pixels, line by line, and where each line's runs stop."""
    height, width = mask.shape
    count = 0
    for y in range(height):
        count += mask[y, 0]
        for x in range(1, width):
            count += mask[y, x] & ~mask[y, x - 1]
    spans, stops = np.empty((count, 2), np.int32), np.empty(height, np.int64)
    n = 0
    for y in range(height):
        inside = False
        for x in range(width):
            if mask[y, x] != inside:
                spans[n, int(inside)] = x
                n += inside
                inside = not inside
        if inside:
            spans[n, 1] = width
            n += 1
        stops[y] = n
    return spans, stops


@njit(nogil=True, cache=True)
def _join_lines(spans, parent, first, middle, last):  # type: ignore[no-untyped-def]  # numba infers the types
    """Join the runs ``first .. middle`` of a line with those of the next that they touch."""
    i, k = first, middle
    while i < middle and k < last:
        if spans[i, 0] < spans[k, 1] and spans[k, 0] < spans[i, 1]:
            join_roots(parent, i, k)
        if spans[i, 1] < spans[k, 1]:
            i += 1
        else:
            k += 1
