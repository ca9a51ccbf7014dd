"""Thin a coverage by Visvalingam's algorithm, arc by arc, smallest triangles first.

A corner is removed only if its triangle contains no other vertex, so borders neither cross nor
touch, holes stay in their shells, and neighbours keep one common border. Nodes are kept. Two arcs
between the same nodes may not both become the straight line between them, and a closed arc keeps a
triangle: no region vanishes. Arcs are processed in the order of rings, which does not depend on the
block size.
"""

from __future__ import annotations

import numpy as np

from wsiseg.kernels import kernel
from wsiseg.trace.coverage import cross, holds_vertex

__all__ = ["thin_coverage"]

_INDEX = (1 << 32) - 1


@kernel
def thin_coverage(net, limit):  # type: ignore[no-untyped-def]  # numba infers the types
    """Return which vertices of a `Coverage` are kept, ``(V,)`` bool.

    `limit` is twice the area of the largest triangle that is cut off.
    """
    ring, stops, nodes = net.ring, net.stops, net.nodes
    alive, seen = np.ones(nodes.size, np.bool_), np.zeros(nodes.size, np.bool_)
    links = _link_nodes(net)
    longest, balance = _longest_arc(net), 0
    arc, work = np.empty(longest, np.int32), np.empty((longest, 3), np.int64)
    heaps = np.empty((2, 3 * longest), np.int64)
    for r in range(stops.size - 1):
        start, stop = stops[r], stops[r + 1]
        first = start
        while first < stop and not nodes[ring[first]]:
            first += 1
        if first == stop:
            if not seen[ring[start]]:
                for k in range(start, stop):
                    arc[k - start], seen[ring[k]] = ring[k], True
                balance = _thin_arc(
                    net, arc[: stop - start], True, alive, links, work, heaps, limit, balance
                )
            continue
        arc[0], length = ring[first], 1
        for k in range(first + 1, first + 1 + stop - start):
            vertex = ring[k if k < stop else k - stop + start]
            arc[length] = vertex
            length += 1
            if nodes[vertex]:
                # The neighbour's ring comes along here from the other end.
                if length > 2 and not seen[arc[1]]:
                    seen[arc[1]] = seen[arc[length - 2]] = True
                    balance = _thin_arc(
                        net, arc[:length], False, alive, links, work, heaps, limit, balance
                    )
                arc[0], length = vertex, 1
    return alive


@kernel
def _longest_arc(net):  # type: ignore[no-untyped-def]  # numba infers the types
    """Return the number of vertices of the longest arc, both ends included, as size of buffers."""
    ring, stops, longest = net.ring, net.stops, 1
    for r in range(stops.size - 1):
        start, count, turns = stops[r], stops[r + 1] - stops[r], 1
        length = 0
        for k in range(2 * count):  # twice around: an arc may run over the ring's end
            length += 1
            if net.nodes[ring[start + k % count]]:
                longest, length, turns = max(longest, length), 1, 2
        if turns == 1:  # no node: closed
            longest = max(longest, count)
    return longest + 1


@kernel
def _link_nodes(net):  # type: ignore[no-untyped-def]  # numba infers the types
    """Number the nodes, ``(V,)``, and list the nodes joined to each by one edge, ``(M, 4)``."""
    ring, stops, nodes = net.ring, net.stops, net.nodes
    number, count = np.full(nodes.size, -1, np.int32), 0
    for vertex in range(nodes.size):
        if nodes[vertex]:
            number[vertex] = count
            count += 1
    straight = np.full((count, 4), -1, np.int32)
    for r in range(stops.size - 1):
        before = ring[stops[r + 1] - 1]
        for i in range(stops[r], stops[r + 1]):
            if nodes[before] and nodes[ring[i]]:
                _link(straight, number, before, ring[i])
                _link(straight, number, ring[i], before)
            before = ring[i]
    return number, straight


@kernel
def _link(straight, number, one, two):  # type: ignore[no-untyped-def]  # numba infers the types
    """Record that `two` is joined to `one` by one edge; at most four edges meet in a raster."""
    k = 0
    while straight[number[one], k] >= 0 and straight[number[one], k] != two:
        k += 1
    straight[number[one], k] = two


@kernel
def _thin_arc(net, arc, closed, alive, links, work, heaps, limit, balance):  # type: ignore[no-untyped-def]  # numba infers the types
    """Thin one arc, given with its end nodes; a closed arc has none.

    `balance` is twice the signed area by which corners removed so far moved the borders; the new
    balance is returned. Corners that would increase its magnitude are removed only when no others
    are left, so that gains and losses offset each other.
    """
    length, (number, straight) = arc.size, links
    befores, afters, sizes = work[:, 0], work[:, 1], work[:, 2]
    count, least = (length, 3) if closed else (length - 2, 2 if arc[0] == arc[length - 1] else 0)
    waiting = np.zeros(2, np.int64)
    for i in range(length):
        befores[i], afters[i] = (i - 1) % length, (i + 1) % length
        if closed or 0 < i < length - 1:
            _offer(net, arc, i, work, heaps, waiting, limit)
    while count > least and (waiting[0] or waiting[1]):
        turn = int(balance < 0)
        turn = turn if waiting[turn] else 1 - turn
        entry = _pop(heaps[turn], waiting, turn)
        i, size = entry & _INDEX, (entry >> 32) * (2 * turn - 1)
        if not alive[arc[i]] or size != sizes[i]:
            continue
        before, after = befores[i], afters[i]
        a, c = arc[before], arc[after]
        if count == 1 and (straight[number[a]] == c).any():
            break
        if holds_vertex(net, alive, a, arc[i], c):
            continue
        alive[arc[i]] = False
        count, balance = count - 1, balance + size
        if count == 0:
            _link(straight, number, a, c)
            _link(straight, number, c, a)
        afters[before], befores[after] = after, before
        if closed or before > 0:
            _offer(net, arc, before, work, heaps, waiting, limit)
        if closed or after < length - 1:
            _offer(net, arc, after, work, heaps, waiting, limit)
    return balance


@kernel
def _offer(net, arc, i, work, heaps, waiting, limit):  # type: ignore[no-untyped-def]  # numba infers the types
    """Push a corner onto the heap of its turn (left 0, right 1), unless it is too large."""
    size = cross(net, arc[work[i, 0]], arc[i], arc[work[i, 1]])
    work[i, 2] = size
    if abs(size) > limit:
        return
    turn = int(size > 0)
    heap, k, entry = heaps[turn], waiting[turn], abs(size) << 32 | i
    while k > 0 and heap[(k - 1) >> 1] > entry:
        heap[k] = heap[(k - 1) >> 1]
        k = (k - 1) >> 1
    heap[k] = entry
    waiting[turn] += 1


@kernel
def _pop(heap, waiting, turn):  # type: ignore[no-untyped-def]  # numba infers the types
    """Pop the smallest corner from the heap of a turn."""
    least = heap[0]
    waiting[turn] -= 1
    entry, k = heap[waiting[turn]], 0
    while True:
        child = 2 * k + 1
        if child >= waiting[turn]:
            break
        if child + 1 < waiting[turn] and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= entry:
            break
        heap[k] = heap[child]
        k = child
    heap[k] = entry
    return least
