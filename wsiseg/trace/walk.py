"""Follow the linked nodes of a scanned block: pinches first, then open chains, then rings."""

import numpy as np

from wsiseg.kernels import kernel
from wsiseg.trace.scan import EXIT, NEXT, RUN, UNUSED, X, Y

__all__ = ["cut_pinches", "resolve_pinches", "walk_chains", "walk_rings"]


@kernel
def resolve_pinches(nodes, runs, pinches, edge):  # type: ignore[no-untyped-def]  # numba infers the types
    """Turn left at pinches of one component; return the pinches that only other blocks decide.

    `edge` flags the components that reach the block's edge; two of these may still be one.
    """
    kept = 0
    for k in range(pinches.shape[0]):
        one, two = pinches[k, 0], pinches[k, 1]
        first, second = runs[nodes[one, RUN], 0], runs[nodes[two, RUN], 0]
        if first == second:
            nodes[one, NEXT], nodes[two, NEXT] = nodes[two, NEXT], nodes[one, NEXT]
        elif edge[first] and edge[second]:
            pinches[kept] = pinches[k]
            kept += 1
    return pinches[:kept]


@kernel
def cut_pinches(nodes, pinches, ports):  # type: ignore[no-untyped-def]  # numba infers the types
    """End chains at undecided pinches, with ports numbered from `ports`; return the next nodes."""
    starts = np.empty(2 * pinches.shape[0], np.int32)
    for k in range(starts.size):
        node = pinches[k // 2, k % 2]
        starts[k] = nodes[node, NEXT]
        nodes[node, NEXT] = EXIT - (ports + k)
    return starts


@kernel
def walk_chains(nodes, runs, starts, points, filled):  # type: ignore[no-untyped-def]  # numba infers the types
    """Emit the open chains that begin at `starts`; those that are UNUSED begin none.

    Returns
    -------
    chains
        ``(Q, 3)`` int32: index in `starts`, port of the end, component (UNUSED without a vertex).
    stops
        ``(Q,)`` int64: end of each chain in `points`.
    filled
        Number of points in use.
    """
    chains, stops = np.empty((starts.size, 3), np.int32), np.empty(starts.size, np.int64)
    count = 0
    for k in range(starts.size):
        node = starts[k]
        if node == UNUSED:
            continue
        component = UNUSED
        while node >= 0:
            points[filled, 0], points[filled, 1] = nodes[node, X], nodes[node, Y]
            filled += 1
            component = runs[nodes[node, RUN], 0]
            following = nodes[node, NEXT]
            nodes[node, NEXT] = UNUSED
            node = following
        chains[count, 0], chains[count, 1], chains[count, 2] = k, EXIT - node, component
        stops[count] = filled
        count += 1
    return chains[:count], stops[:count], filled


@kernel
def walk_rings(nodes, runs, points, filled):  # type: ignore[no-untyped-def]  # numba infers the types
    """Emit every remaining closed ring from its first node, its smallest (y, x).

    Returns
    -------
    components
        ``(R,)`` int32.
    stops
        ``(R,)`` int64: end of each ring in `points`; the last point repeats the first.
    filled
        Number of points in use.
    """
    limit = nodes.shape[0] // 4 + 1
    components, stops = np.empty(limit, np.int32), np.empty(limit, np.int64)
    count = 0
    for start in range(nodes.shape[0]):
        if nodes[start, NEXT] == UNUSED:
            continue
        node, following = start, nodes[start, NEXT]
        while following != UNUSED:
            points[filled, 0], points[filled, 1] = nodes[node, X], nodes[node, Y]
            filled += 1
            nodes[node, NEXT] = UNUSED
            node, following = following, nodes[following, NEXT]
        points[filled, 0], points[filled, 1] = nodes[start, X], nodes[start, Y]
        filled += 1
        components[count], stops[count] = runs[nodes[start, RUN], 0], filled
        count += 1
    return components[:count], stops[:count], filled
