"""Trace one block: its closed rings, open chains and components, in small arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsiseg.trace.parts import Parts, compiled_for, count_parts
from wsiseg.trace.scan import NEXT, UNUSED, scan_lines
from wsiseg.trace.walk import cut_pinches, resolve_pinches, walk_chains, walk_rings

__all__ = ["BlockTrace", "trace_block"]

RIGHT, DOWN, LEFT, UP = 0, 1, 2, 3

INNER = 4
"""Added to the direction at a pinch, whose half-edge may also enter the next block at a port."""

_LINE = 1 << 31  # exceeds the width of any raster: (y, x, direction) packs into an int64


class BlockTrace(NamedTuple):
    """The boundaries in one block; coordinates are those of the raster."""

    parts: Parts
    points: NDArray[np.int32]
    """``(N, 2)`` x, y of the chains, then of the rings."""
    chain_stops: NDArray[np.int64]
    """``(Q,)`` end of each open chain in `points`."""
    chain_components: NDArray[np.int32]
    """``(Q,)``; -1 for a chain without a vertex: a straight boundary across the block."""
    chain_keys: NDArray[np.int64]
    """``(Q, 2)`` keys of the half-edges that begin each chain and that follow its end."""
    pinches: NDArray[np.int32]
    """``(M, 2)`` pairs of chains that swap successors if they belong to one region."""
    ring_stops: NDArray[np.int64]
    """``(R,)`` end of each ring in `points`."""
    ring_components: NDArray[np.int32]
    """``(R,)`` component of each ring."""


def trace_block(
    labels: NDArray[np.uint8],
    confidence: NDArray[np.uint8] | None,
    corner: tuple[int, int],
    background: int,
    junctions: bool = False,
) -> BlockTrace | None:
    """Trace the vertices of one block.

    Parameters
    ----------
    labels, confidence
        ``(h + 1, w + 1)`` uint8 of `margin_box`; background outside the raster.
    corner
        ``(x, y)`` of the block's first vertex, the corner of its first pixel without margin.
    background
        Label that gets no polygon.
    junctions
        Whether a straight boundary gets a vertex where other regions meet it, so that neighbours
        share every vertex (a valid coverage).

    Returns
    -------
    BlockTrace or None
        None if all pixels are background.
    """
    if labels.min() == labels.max() == background:
        return None
    x0, y0 = corner
    labels, scores = compiled_for(labels, confidence)
    nodes, n_nodes, runs, n_runs, pinches, n_pinches, *edge_runs = scan_lines(
        labels, scores, background, junctions, x0, y0
    )
    nodes, runs, pinches = nodes[:n_nodes], runs[:n_runs], pinches[:n_pinches]
    parts = count_parts(runs, edge_runs)
    on_edge = np.zeros(len(parts.labels), bool)
    for line in parts.edges:
        on_edge[line] = True
    pinches = resolve_pinches(nodes, runs, pinches, on_edge)
    height, width = labels.shape[0] - 1, labels.shape[1] - 1
    enter, leave = _port_keys(height, width, x0, y0, nodes, pinches)
    ports = 2 * (height + width)
    cut = cut_pinches(nodes, pinches, ports)
    points = np.empty((len(nodes) - ports + (len(nodes) - ports) // 4, 2), np.int32)
    starts = np.concatenate([nodes[:ports, NEXT], cut])
    nodes[:ports, NEXT] = UNUSED
    chains, chain_stops, filled = walk_chains(nodes, runs, starts, points, 0)
    ring_components, ring_stops, filled = walk_rings(nodes, runs, points, filled)
    return BlockTrace(
        parts, points[:filled], chain_stops, chains[:, 2].copy(),
        np.stack([enter[chains[:, 0]], leave[chains[:, 1]]], axis=1),
        _pinched_chains(chains[:, 1], ports, len(pinches)), ring_stops, ring_components,
    )  # fmt: skip


def _pinched_chains(ends: NDArray[np.int32], ports: int, count: int) -> NDArray[np.int32]:
    """Return the two chains that end at each undecided pinch, ``(M, 2)`` int32."""
    out = np.empty(2 * count, np.int32)
    (chains,) = np.nonzero(ends >= ports)
    out[ends[chains] - ports] = chains
    return out.reshape(count, 2)


def _port_keys(
    height: int, width: int, x0: int, y0: int, nodes: NDArray[Any], pinches: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return keys of the half-edges that enter and leave by each port, ``(P,)`` int64 each."""
    columns, rows = x0 + np.arange(width), y0 + np.arange(height)
    right, bottom = x0 + width, y0 + height
    enter = [
        _key(columns, y0 - 1, DOWN), _key(x0 - 1, rows, RIGHT),
        _key(columns, bottom, UP), _key(right, rows, LEFT),
    ]  # fmt: skip
    leave = [
        _key(columns, y0, UP), _key(x0, rows, LEFT),
        _key(columns, bottom - 1, DOWN), _key(right - 1, rows, RIGHT),
    ]  # fmt: skip
    # Two nodes meet at a pinch: a goes left and d right, or c goes down and b up.
    vertices = nodes[pinches[:, 0]]
    first = np.where(pinches[:, 2] == 0, LEFT, DOWN)
    second = np.where(pinches[:, 2] == 0, RIGHT, UP)
    directions = np.stack([first, second], axis=1) + INNER
    inner = _key(vertices[:, :1], vertices[:, 1:2], directions).ravel()
    return np.concatenate([*enter, inner]), np.concatenate([*leave, inner])


def _key(x: Any, y: Any, direction: Any) -> NDArray[np.int64]:
    """Encode the half-edge that leaves vertex ``(x, y)`` in `direction` as one number."""
    return np.asarray((np.asarray(y, np.int64) * _LINE + x) * 8 + direction)
