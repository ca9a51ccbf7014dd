"""Scan one block's labels line by line for connected runs and the linked corners of boundaries.

A block owns the pixel corners (vertices) of its square. It reads one more row above and one more
column to the left, so that all four pixels around each of its vertices are available::

    a | b        boundary half-edges keep their region on the right (y grows downward):
    --+--        the right side of a comes down, the top of c goes right,
    c | d        the left side of d goes up, the bottom of b goes left

An arriving half-edge turns right if the pixel ahead on its right has another label, else it goes
straight or turns left. At a checkerboard corner of one label it turns right, as 4-connectivity
requires, unless both pixels belong to one region; then it turns left, which splits a ring that
would touch itself into simple rings (a pinched exterior becomes an exterior and a hole).

Each turn is a *node*. During the scan, the open end of every vertical boundary is stored by column,
and that of the horizontal one in a pair of variables, so linking needs no search. Boundaries that
cross the block's edge end at *ports*.
"""

from __future__ import annotations

import numpy as np

from wsiseg.kernels import kernel
from wsiseg.trace.runs import add_runs, find_ends, grow, spread_runs
from wsiseg.trace.sets import join_roots

__all__ = ["EXIT", "NEXT", "RUN", "UNUSED", "X", "Y", "scan_lines"]

X, Y, NEXT, RUN = 0, 1, 2, 3
"""Columns of the node table."""

UNUSED = -1
"""`NEXT` of a node that was emitted, or of a port where no boundary enters."""

EXIT = -2
"""A `NEXT` of ``EXIT - p`` leaves the block at port `p`."""


@kernel(inline="always")
def _add_node(nodes, n, x, y, run):  # type: ignore[no-untyped-def]  # numba infers the types
    nodes[n, X], nodes[n, Y], nodes[n, RUN] = x, y, run
    return n + 1


@kernel(inline="always")  # a call for each vertex would cost a tenth
def _meet(nodes, n, down, up, j, right, left, x, y, quad, at, background, junctions):  # type: ignore[no-untyped-def]  # numba infers the types
    """Link the half-edges that meet at one vertex; return the count of nodes, and the open ends.

    `right` is the node at which the half-edge going right began, `left` the one at which the
    half-edge going left will end; ``down[j]`` and ``up[j]`` likewise. `quad` holds the labels of
    the pixels a, b, c, d, and `at` their runs.
    """
    a, b, c, d = quad
    above, below, before, after = a != b, c != d, a != c, b != d
    from_above, to_above, from_left, to_left = down[j], up[j], right, left
    if above and a != background:  # the right side of a comes down
        if before:
            nodes[from_above, NEXT], nodes[n, NEXT] = n, to_left
            n = _add_node(nodes, n, x, y, at[0])
        elif a == d:
            nodes[from_above, NEXT], right = n, n
            n = _add_node(nodes, n, x, y, at[0])
        elif junctions and after:
            nodes[from_above, NEXT], down[j] = n, n
            n = _add_node(nodes, n, x, y, at[0])
    if before and c != background:  # the top of c goes right
        if below:
            nodes[from_left, NEXT], down[j] = n, n
            n = _add_node(nodes, n, x, y, at[2])
        elif c == b:
            nodes[from_left, NEXT], nodes[n, NEXT] = n, to_above
            n = _add_node(nodes, n, x, y, at[2])
        elif junctions and above:
            nodes[from_left, NEXT], right = n, n
            n = _add_node(nodes, n, x, y, at[2])
    if below and d != background:  # the left side of d goes up
        if after:
            up[j], right = n, n
            n = _add_node(nodes, n, x, y, at[3])
        elif d == a:
            up[j], nodes[n, NEXT] = n, to_left
            n = _add_node(nodes, n, x, y, at[3])
        elif junctions and before:
            up[j], nodes[n, NEXT] = n, to_above
            n = _add_node(nodes, n, x, y, at[3])
    if after and b != background:  # the bottom of b goes left
        if above:
            left, nodes[n, NEXT] = n, to_above
            n = _add_node(nodes, n, x, y, at[1])
        elif b == c:
            left, down[j] = n, n
            n = _add_node(nodes, n, x, y, at[1])
        elif junctions and below:
            left, nodes[n, NEXT] = n, to_left
            n = _add_node(nodes, n, x, y, at[1])
    return n, right, left


@kernel
def _note_pinches(pinches, count, n, quad, background):  # type: ignore[no-untyped-def]  # numba infers the types
    """Record the node pairs of a checkerboard vertex whose first node is `n`; return their count.

    There, `_meet` adds one node for each pixel that is not background, in the order a, c, d, b.
    """
    a, b, c, d = quad
    node_c = n + (a != background)
    node_d = node_c + (c != background)
    if a == d and a != background:
        pinches[count, 0], pinches[count, 1], pinches[count, 2] = n, node_d, 0
        count += 1
    if b == c and b != background:
        pinches[count, 0], pinches[count, 1] = node_c, node_d + (d != background)
        pinches[count, 2] = 1
        count += 1
    return count


@kernel
def _scan_row(  # type: ignore[no-untyped-def]  # numba infers the types
    nodes, n, runs, first, first_below, ends, ends_below, pinches, pinched, down, up, left_port,
    right_port, x0, y, background, junctions,
):  # fmt: skip
    """Link the boundaries between two rows of pixels; return the counts of nodes and pinches."""
    right, left = left_port, EXIT - left_port
    u, v = first, first_below
    a, c = runs[u, 1], runs[v, 1]
    while True:
        if a == c:
            join_roots(runs[:, 0], u, v)
        end, end_below = ends[u - first], ends_below[v - first_below]
        k = min(end, end_below)
        if k > down.size:
            break
        at_a, at_c = u, v
        u += end == k
        v += end_below == k
        b, d = runs[u, 1], runs[v, 1]
        if a != c or b != d:
            quad = (a, b, c, d)
            if a != c and b != d and a != b and c != d and (a == d or b == c):
                pinched = _note_pinches(pinches, pinched, n, quad, background)
            n, right, left = _meet(
                nodes, n, down, up, k - 1, right, left, x0 + k - 1, y, quad,
                (at_a, u, at_c, v), background, junctions,
            )  # fmt: skip
        a, c = b, d
    if a != c:  # the boundary leaves, and enters, on the right
        if c != background:
            nodes[right, NEXT] = EXIT - right_port
        if a != background:
            nodes[right_port, NEXT] = left
    return n, pinched


@kernel
def scan_lines(labels, scores, background, junctions, x0, y0):  # type: ignore[no-untyped-def]  # numba infers the types
    """Scan one block for nodes, runs and pinches.

    Parameters
    ----------
    labels
        ``(h + 1, w + 1)`` uint8, with the row above and the column to the left.
    scores
        Confidence, uint8, of the same shape; ``(h + 1, 0)`` if there is none.
    background
        Label that gets no polygon.
    junctions
        Whether straight boundaries get a node where other regions meet them.
    x0, y0
        Raster coordinates of the block's first vertex.

    Returns
    -------
    nodes, runs, pinches
        Tables ``(n, 4)``, ``(n, 4)`` and ``(n, 3)`` int32, each with its row count. Nodes begin
        with one row per port: ``w`` above, ``h`` to the left, ``w`` below, ``h`` to the right.
    above, to_left, below, to_right
        Run of each pixel along the block's edges, including the margin, int32.
    """
    height, width = labels.shape[0] - 1, labels.shape[1] - 1
    to_left, to_right = np.empty(height + 1, np.int32), np.empty(height + 1, np.int32)
    n = 2 * (height + width)
    # Ample: memory that is never touched costs nothing, but growing costs a copy.
    capacity = 4 * width + height * width // 8
    nodes, runs = np.empty((n + capacity, 4), np.int32), np.empty((capacity, 4), np.int32)
    nodes[:n, NEXT] = UNUSED
    pinches = np.empty((64, 3), np.int32)
    down, up = np.arange(width), EXIT - np.arange(width)
    ends, ends_below = np.empty(width + 1, np.int32), np.empty(width + 1, np.int32)
    first, pinched = 0, 0
    count = find_ends(labels[0], ends)
    add_runs(labels[0], scores[0], ends, count, False, runs, first)
    above = spread_runs(ends, count, first)
    to_left[0], to_right[0] = first, first + count - 1
    for i in range(height):
        count_below = find_ends(labels[i + 1], ends_below)
        first_below = first + count
        runs = grow(runs, first_below, count_below)
        add_runs(labels[i + 1], scores[i + 1], ends_below, count_below, True, runs, first_below)
        nodes = grow(nodes, n, 4 * (count + count_below))
        pinches = grow(pinches, pinched, 2 * (count + count_below))
        n, pinched = _scan_row(
            nodes, n, runs, first, first_below, ends, ends_below, pinches, pinched, down, up,
            width + i, 2 * width + height + i, x0, y0 + i, background, junctions,
        )  # fmt: skip
        first, count, ends, ends_below = first_below, count_below, ends_below, ends
        to_left[i + 1], to_right[i + 1] = first, first + count - 1
    _close_below(nodes, runs, ends, count, first, down, up, width + height, background)
    return (
        nodes, n, runs, first + count, pinches, pinched,
        above, to_left, spread_runs(ends, count, first), to_right,
    )  # fmt: skip


@kernel
def _close_below(nodes, runs, ends, count, first, down, up, port, background):  # type: ignore[no-untyped-def]  # numba infers the types
    """End the vertical boundaries of the last row at the ports below, beginning with `port`."""
    for m in range(count - 1):
        j = ends[m] - 1
        if runs[first + m, 1] != background:
            nodes[down[j], NEXT] = EXIT - (port + j)
        if runs[first + m + 1, 1] != background:
            nodes[port + j, NEXT] = up[j]
