"""Regions as one planar net: vertices that neighbours share, and which vertex lies where.

The rings of all regions are numbered by *vertex*: one number for each point, whoever's ring it is
on. Numbers run in strips of rows, in a strip from left to right, so that the vertices in a small
box are found without any further index. Where three or more regions meet (background and the
outside count) the vertex is a *node*. Between nodes run *arcs*, each of which parts two regions
and is the same points in both rings, one way and the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from wsiseg.annotations import Region

__all__ = ["STRIP_BITS", "Coverage", "cross", "flatten_rings", "holds_vertex", "number_vertices"]

STRIP_BITS = 3
"""A strip is ``2**STRIP_BITS`` rows high: few vertices to pass over, few strips to visit."""


class Coverage(NamedTuple):
    """Rings over common vertices."""

    ring: NDArray[np.int32]
    """``(N,)`` vertex of each ring's points, the last not repeated."""
    stops: NDArray[np.int64]
    """``(R + 1,)`` where rings begin and end in `ring`."""
    xs: NDArray[np.int32]
    """``(V,)``; ascending within a strip."""
    ys: NDArray[np.int32]
    """``(V,)``."""
    strips: NDArray[np.int64]
    """``(S + 1,)`` where the vertices of each strip begin and end."""
    nodes: NDArray[np.bool_]
    """``(V,)`` where three or more regions meet."""


def flatten_rings(regions: Sequence[Region]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Points ``(N, 2)`` of every ring, unclosed, each region's exterior first; stops ``(R + 1,)``.

    There is at least one region.
    """
    rings = [ring for region in regions for ring in (region.exterior, *region.holes)]
    closed = np.cumsum([len(ring) for ring in rings])
    kept = np.ones(closed[-1], bool)
    kept[closed - 1] = False
    stops = np.concatenate([[0], closed - np.arange(1, len(rings) + 1)])
    return np.concatenate(rings)[kept], stops


def number_vertices(points: NDArray[np.int32], stops: NDArray[np.int64]) -> Coverage:
    """The net that rings form; `points` and `stops` as `flatten_rings` gives them."""
    x, y = points[:, 0].astype(np.int64), points[:, 1].astype(np.int64)
    keys = (y >> STRIP_BITS << 32 | x) << STRIP_BITS | y & ((1 << STRIP_BITS) - 1)
    del x, y
    order = np.argsort(keys)
    ring, xs, ys = _number(keys, order, points)
    lines = np.arange((int(ys.max()) >> STRIP_BITS) + 2)
    strips = np.searchsorted(ys >> STRIP_BITS, lines)
    return Coverage(ring, stops, xs, ys, strips, _find_nodes(ring, stops, len(xs)))


@njit(nogil=True, cache=True)
def _number(keys, order, points):  # type: ignore[no-untyped-def]  # numba infers the types
    """Number equal keys alike, in their order; the numbers, and the vertices' x and y."""
    ring = np.empty(keys.size, np.int32)
    xs, ys = np.empty(keys.size, np.int32), np.empty(keys.size, np.int32)
    count = 0
    for k in range(order.size):
        i = order[k]
        if k == 0 or keys[i] != keys[order[k - 1]]:
            xs[count], ys[count] = points[i, 0], points[i, 1]
            count += 1
        ring[i] = count - 1
    return ring, xs[:count].copy(), ys[:count].copy()


@njit(nogil=True, cache=True)
def _find_nodes(ring, stops, count):  # type: ignore[no-untyped-def]  # numba infers the types
    """A vertex is no node if one ring passes it, or two do on the same two edges."""
    nodes, befores = np.zeros(count, np.bool_), np.full(count, -1, np.int32)
    afters = np.full(count, -1, np.int32)
    for r in range(stops.size - 1):
        before = ring[stops[r + 1] - 1]
        for i in range(stops[r], stops[r + 1]):
            vertex, after = ring[i], ring[i + 1 if i + 1 < stops[r + 1] else stops[r]]
            if befores[vertex] < 0:
                befores[vertex], afters[vertex] = before, after
            elif befores[vertex] != after or afters[vertex] != before:
                nodes[vertex] = True
            before = vertex
    return nodes


@njit(nogil=True, cache=True)
def _first_at(xs, low, high, x):  # type: ignore[no-untyped-def]  # numba infers the types
    """First of the vertices from `low` to `high` whose x is at least `x`."""
    while low < high:
        middle = (low + high) // 2
        if xs[middle] < x:
            low = middle + 1
        else:
            high = middle
    return low


@njit(nogil=True, cache=True)
def cross(net, a, b, c):  # type: ignore[no-untyped-def]  # numba infers the types
    """Twice the signed area of the triangle of three vertices."""
    xs, ys = net.xs, net.ys
    x, y = np.int64(xs[a]), np.int64(ys[a])
    return (xs[b] - x) * (ys[c] - y) - (xs[c] - x) * (ys[b] - y)


@njit(nogil=True, cache=True)
def holds_vertex(net, alive, a, b, c):  # type: ignore[no-untyped-def]  # numba infers the types
    """Whether the triangle of the vertices, edges too, holds a living one besides its corners.

    If none, ``a - b - c`` may become ``a - c`` and no border crosses or touches another: a border
    that reached into the triangle would have to end there.
    """
    xs, ys, strips = net.xs, net.ys, net.strips
    left, right = min(xs[a], xs[b], xs[c]), max(xs[a], xs[b], xs[c])
    top, bottom = min(ys[a], ys[b], ys[c]), max(ys[a], ys[b], ys[c])
    for strip in range(top >> STRIP_BITS, (bottom >> STRIP_BITS) + 1):
        if strip == ys[b] >> STRIP_BITS:  # near at hand: no search
            v = b
            while v > strips[strip] and xs[v - 1] >= left:
                v -= 1
        else:
            v = _first_at(xs, strips[strip], strips[strip + 1], left)
        while v < strips[strip + 1] and xs[v] <= right:
            if alive[v] and top <= ys[v] <= bottom and v != a and v != b and v != c:
                one, two = cross(net, a, b, v), cross(net, b, c, v)
                three = cross(net, c, a, v)
                if (one >= 0 and two >= 0 and three >= 0) or (one <= 0 and two <= 0 and three <= 0):
                    return True
            v += 1
    return False
