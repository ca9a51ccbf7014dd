"""Regions as one planar net: vertices that neighbours share, and which vertex lies where.

The rings of all regions are numbered by *vertex*: one number for each point, whoever's ring it is
on. Numbers run in strips of rows, in a strip from left to right, so that the vertices in a small
box are found without any further index. Where three or more regions meet (background and the
outside count) the vertex is a *node*. Between nodes run *arcs*, each of which parts two regions
and is the same points in both rings, one way and the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsiseg.kernels import kernel

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


def flatten_rings(
    rings: Sequence[NDArray[np.int32]],
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Points ``(N, 2)`` of closed rings, none repeated; stops ``(R + 1,)``. There is a ring."""
    stops = np.cumsum([0, *(len(ring) - 1 for ring in rings)])
    return np.concatenate([ring[:-1] for ring in rings]), stops


def number_vertices(points: list[NDArray[np.int32]], stops: NDArray[np.int64]) -> Coverage:
    """The net that rings form, whose points are the only entry of `points`, which is emptied.

    At 80,000 px a side the points take half a gigabyte, so they go as soon as they are numbered.
    """
    found = points.pop()
    order, strips = _sort_strips(found, int(found[:, 1].max()) >> STRIP_BITS)
    for first, last in pairwise(strips.tolist()):
        x, y = found[order[first:last]].astype(np.int64).T
        keys = x << STRIP_BITS | y & ((1 << STRIP_BITS) - 1)
        order[first:last] = order[first:last][np.argsort(keys)]
    ring, count = _number(found, order)
    del order
    xs, ys = _place(found, ring, count)
    del found
    lines = np.arange(len(strips))
    strips = np.searchsorted(ys >> STRIP_BITS, lines)
    return Coverage(ring, stops, xs, ys, strips, _find_nodes(ring, stops, count))


@kernel
def _sort_strips(points, last):  # type: ignore[no-untyped-def]  # numba infers the types
    """The points' numbers, strip by strip, and where each strip's begin and end."""
    stops = np.zeros(last + 2, np.int64)
    for i in range(points.shape[0]):
        stops[(points[i, 1] >> STRIP_BITS) + 1] += 1
    for strip in range(last + 1):
        stops[strip + 1] += stops[strip]
    order, at = np.empty(points.shape[0], np.int32), stops.copy()
    for i in range(points.shape[0]):
        strip = points[i, 1] >> STRIP_BITS
        order[at[strip]] = i
        at[strip] += 1
    return order, stops


@kernel
def _number(points, order):  # type: ignore[no-untyped-def]  # numba infers the types
    """Number equal points alike, in their order; the numbers, and how many there are."""
    ring, count = np.empty(order.size, np.int32), 0
    for k in range(order.size):
        i, j = order[k], order[k - 1]
        if k == 0 or points[i, 0] != points[j, 0] or points[i, 1] != points[j, 1]:
            count += 1
        ring[i] = count - 1
    return ring, count


@kernel
def _place(points, ring, count):  # type: ignore[no-untyped-def]  # numba infers the types
    """The vertices' x and y."""
    xs, ys = np.empty(count, np.int32), np.empty(count, np.int32)
    for i in range(ring.size):
        xs[ring[i]], ys[ring[i]] = points[i, 0], points[i, 1]
    return xs, ys


@kernel
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


@kernel
def _first_at(xs, low, high, x):  # type: ignore[no-untyped-def]  # numba infers the types
    """First of the vertices from `low` to `high` whose x is at least `x`."""
    while low < high:
        middle = (low + high) // 2
        if xs[middle] < x:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def cross(net, a, b, c):  # type: ignore[no-untyped-def]  # numba infers the types
    """Twice the signed area of the triangle of three vertices."""
    xs, ys = net.xs, net.ys
    x, y = np.int64(xs[a]), np.int64(ys[a])
    return (xs[b] - x) * (ys[c] - y) - (xs[c] - x) * (ys[b] - y)


@kernel
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
