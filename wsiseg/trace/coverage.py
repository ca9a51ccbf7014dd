"""Regions as one planar coverage: vertices that neighbours share, indexed by position.

Points are numbered by *vertex*: one number per point, shared by all rings that pass it. Numbers run
in strips of rows, within a strip from left to right, so that the vertices in a small box are found
without a further index. A vertex where three or more regions meet (background and the outside
count) is a *node*. *Arcs* run between nodes; each separates two regions, and both rings contain the
same points, in opposite order.
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
"""A strip is ``2**STRIP_BITS`` rows high: few vertices to skip, few strips to visit."""


class Coverage(NamedTuple):
    """Rings over shared vertices."""

    ring: NDArray[np.int32]
    """``(N,)`` vertex of each point of all rings; first points are not repeated."""
    stops: NDArray[np.int64]
    """``(R + 1,)`` offsets of the rings in `ring`."""
    xs: NDArray[np.int32]
    """``(V,)`` x of each vertex; ascending within a strip."""
    ys: NDArray[np.int32]
    """``(V,)`` y of each vertex."""
    strips: NDArray[np.int64]
    """``(S + 1,)`` offsets of each strip's vertices."""
    nodes: NDArray[np.bool_]
    """``(V,)`` flags of the vertices where three or more regions meet."""


def flatten_rings(
    rings: Sequence[NDArray[np.int32]],
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return points ``(N, 2)`` of closed rings (one or more), none repeated; stops ``(R + 1,)``."""
    stops = np.cumsum([0, *(len(ring) - 1 for ring in rings)])
    return np.concatenate([ring[:-1] for ring in rings]), stops


def number_vertices(points: list[NDArray[np.int32]], stops: NDArray[np.int64]) -> Coverage:
    """Build the coverage of rings whose points are the only entry of `points`, which is emptied.

    At a side of 80,000 px the points take half a gigabyte, so they are freed once numbered.
    """
    flat = points.pop()
    order, strips = _sort_strips(flat, int(flat[:, 1].max()) >> STRIP_BITS)
    for first, last in pairwise(strips.tolist()):
        x, y = flat[order[first:last]].astype(np.int64).T
        keys = x << STRIP_BITS | y & ((1 << STRIP_BITS) - 1)
        order[first:last] = order[first:last][np.argsort(keys)]
    ring, count = _number(flat, order)
    del order
    xs, ys = _place(flat, ring, count)
    del flat
    strips = np.searchsorted(ys >> STRIP_BITS, np.arange(len(strips)))
    return Coverage(ring, stops, xs, ys, strips, _find_nodes(ring, stops, count))


@kernel
def _sort_strips(points, last):  # type: ignore[no-untyped-def]  # numba infers the types
    """Return the points' indices, strip by strip, and the offsets of the strips."""
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
    """Give equal points equal numbers, in their order; return the numbers and their count."""
    ring, count = np.empty(order.size, np.int32), 0
    for k in range(order.size):
        i, j = order[k], order[k - 1]
        if k == 0 or points[i, 0] != points[j, 0] or points[i, 1] != points[j, 1]:
            count += 1
        ring[i] = count - 1
    return ring, count


@kernel
def _place(points, ring, count):  # type: ignore[no-untyped-def]  # numba infers the types
    """Return the vertices' x and y."""
    xs, ys = np.empty(count, np.int32), np.empty(count, np.int32)
    for i in range(ring.size):
        xs[ring[i]], ys[ring[i]] = points[i, 0], points[i, 1]
    return xs, ys


@kernel
def _find_nodes(ring, stops, count):  # type: ignore[no-untyped-def]  # numba infers the types
    """Flag the nodes: vertices not passed by one ring only, or by two along the same two edges."""
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
    """Return the first of the vertices from `low` to `high` whose x is at least `x`."""
    while low < high:
        middle = (low + high) // 2
        if xs[middle] < x:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def cross(net, a, b, c):  # type: ignore[no-untyped-def]  # numba infers the types
    """Return twice the signed area of the triangle of three vertices."""
    xs, ys = net.xs, net.ys
    x, y = np.int64(xs[a]), np.int64(ys[a])
    return (xs[b] - x) * (ys[c] - y) - (xs[c] - x) * (ys[b] - y)


@kernel
def holds_vertex(net, alive, a, b, c):  # type: ignore[no-untyped-def]  # numba infers the types
    """Whether the triangle, edges included, contains a living vertex besides its corners.

    If not, ``a - b - c`` may become ``a - c`` and no border crosses or touches another: a border
    that reached into the triangle would have to end in it.
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
