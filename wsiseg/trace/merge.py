"""Join the traces of all blocks: components across edges, chains into rings, rings into regions.

The result does not depend on the block size: every ring begins at its smallest ``(y, x)`` vertex,
regions are sorted by label and first vertex of their exterior, holes by their first vertex.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsiseg.annotations import Region
from wsiseg.errors import GeometryError
from wsiseg.kernels import kernel
from wsiseg.trace.block import BlockTrace
from wsiseg.trace.parts import Parts
from wsiseg.trace.sets import join_roots, number_roots

__all__ = ["Components", "join_components", "merge_blocks"]

Array = NDArray[Any]


class Components(NamedTuple):
    """The connected components of the whole raster."""

    offsets: dict[int, int]
    """Offset of each block's local components in `global_ids`."""
    global_ids: NDArray[np.int64]
    """``(L,)`` global component of each local component."""
    labels: NDArray[np.uint8]
    """``(C,)`` label of each component."""
    sums: NDArray[np.int64]
    """``(C, 2)`` number of pixels, and sum of their confidence."""

    def of_block(self, block: int, local: NDArray[Any]) -> NDArray[np.int64]:
        """Return the global components of a block's local ones; -1 remains -1."""
        return np.where(local < 0, -1, self.global_ids[self.offsets[block] + local])


class _Rings(NamedTuple):
    """Closed rings in an array of points."""

    points: NDArray[np.int32]
    """``(N, 2)`` x, y."""
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    components: NDArray[np.int64]


def merge_blocks(
    traces: Mapping[int, BlockTrace | None],
    columns: int,
    scored: bool = True,
) -> list[Region]:
    """Join the traces of all blocks to the regions of the whole raster.

    Parameters
    ----------
    traces
        Trace of every block by row-major index; None, or missing, if the block is background.
    columns
        Number of blocks in a row.
    scored
        Whether the blocks were traced with confidence; otherwise, that of every region is 1.

    Raises
    ------
    GeometryError
        If a block that the boundaries reach is missing.
    """
    present = {block: trace for block, trace in sorted(traces.items()) if trace is not None}
    if not present:
        return []
    components = join_components({block: trace.parts for block, trace in present.items()}, columns)
    rings = [
        _Rings(
            trace.points, _starts(trace.ring_stops, trace.chain_stops), trace.ring_stops,
            components.of_block(block, trace.ring_components),
        )
        for block, trace in present.items()
    ]  # fmt: skip
    rings.append(_close_chains(present, components))
    return _assemble(rings, components, scored)


def join_components(blocks: Mapping[int, Parts], columns: int) -> Components:
    """Unite the blocks' components wherever two blocks see the same pixel."""
    sizes = [len(parts.labels) for parts in blocks.values()]
    offsets = dict(zip(blocks, np.cumsum([0, *sizes]).tolist(), strict=False))
    parent = np.arange(sum(sizes))
    for block, parts in blocks.items():
        right, below = blocks.get(block + 1), blocks.get(block + columns)
        if right is not None and (block + 1) % columns:
            one, two = parts.edges.right, right.edges.left
            _join_along(parent, one, offsets[block], two, offsets[block + 1])
        if below is not None:
            one, two = parts.edges.below, below.edges.above
            _join_along(parent, one, offsets[block], two, offsets[block + columns])
    count = number_roots(parent)
    labels, sums = np.empty(count, np.uint8), np.zeros((count, 2), np.int64)
    for block, parts in blocks.items():
        ids = parent[offsets[block] : offsets[block] + len(parts.labels)]
        labels[ids] = parts.labels
        np.add.at(sums, ids, parts.sums)
    return Components(offsets, parent, labels, sums)


@kernel
def _join_along(parent, one, offset, two, other):  # type: ignore[no-untyped-def]  # numba infers the types
    for k in range(one.size):
        if k == 0 or one[k] != one[k - 1] or two[k] != two[k - 1]:
            join_roots(parent, offset + one[k], other + two[k])


def _starts(stops: Array, before: Array) -> NDArray[np.int64]:
    """Return where each of consecutive pieces begins; the first begins where `before` ends."""
    first = before[-1:] if len(before) else np.zeros(1, np.int64)
    return np.concatenate([first, stops[:-1]])[: len(stops)]


def _close_chains(traces: Mapping[int, BlockTrace], components: Components) -> _Rings:
    """Link the open chains of all blocks into rings."""
    ends = [trace.chain_stops[-1] if len(trace.chain_stops) else 0 for trace in traces.values()]
    shift = np.concatenate([[0], np.cumsum(ends)])
    points = np.concatenate(
        [trace.points[:end] for trace, end in zip(traces.values(), ends, strict=True)]
    )
    stops = np.concatenate(
        [trace.chain_stops + s for trace, s in zip(traces.values(), shift, strict=False)]
    )
    keys = np.concatenate([trace.chain_keys for trace in traces.values()])
    counts = np.cumsum([0] + [len(trace.chain_stops) for trace in traces.values()])
    pinches = np.concatenate(
        [trace.pinches + n for trace, n in zip(traces.values(), counts, strict=False)]
    )
    ids = np.concatenate(
        [components.of_block(block, trace.chain_components) for block, trace in traces.items()]
    )
    following = _follow_keys(keys)
    one, two = pinches[ids[pinches[:, 0]] == ids[pinches[:, 1]]].T
    following[one], following[two] = following[two], following[one]
    empty = np.zeros(0, np.int64)
    return _Rings(*_link(points, _starts(stops, empty), stops, following, ids))


def _follow_keys(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the successor of each chain, which begins with the half-edge that follows its end."""
    order = np.argsort(keys[:, 0])
    begins = keys[order, 0]
    indices = np.searchsorted(begins, keys[:, 1])
    if (indices == len(keys)).any() or (begins[indices] != keys[:, 1]).any():
        raise GeometryError(
            f"boundaries run on into a block that was not traced ({len(keys)} open chains); "
            f"trace every block of the grid"
        )
    return order[indices]


@kernel
def _link(points, starts, stops, following, of):  # type: ignore[no-untyped-def]  # numba infers the types
    """Return points, starts, stops and components of the rings that the chains form."""
    count = starts.size
    out = np.empty((points.shape[0] + count, 2), np.int32)
    ring_stops, ring_of = np.empty(count, np.int64), np.empty(count, np.int64)
    done = np.zeros(count, np.bool_)
    filled, rings = 0, 0
    for first in range(count):
        if done[first]:
            continue
        begin, component, chain = filled, -1, first
        while not done[chain]:
            done[chain] = True
            for k in range(starts[chain], stops[chain]):
                out[filled, 0], out[filled, 1] = points[k, 0], points[k, 1]
                filled += 1
            component = max(component, of[chain])
            chain = following[chain]
        _rotate(out[begin:filled])
        out[filled, 0], out[filled, 1] = out[begin, 0], out[begin, 1]
        filled += 1
        ring_stops[rings], ring_of[rings] = filled, component
        rings += 1
    ring_starts = np.zeros(rings, np.int64)
    ring_starts[1:] = ring_stops[: max(rings - 1, 0)]
    return out[:filled], ring_starts, ring_stops[:rings], ring_of[:rings]


@kernel
def _rotate(ring):  # type: ignore[no-untyped-def]  # numba infers the types
    """Rotate an unclosed ring in place, so that it begins at its smallest (y, x)."""
    least = 0
    for k in range(1, ring.shape[0]):
        if ring[k, 1] < ring[least, 1] or (
            ring[k, 1] == ring[least, 1] and ring[k, 0] < ring[least, 0]
        ):
            least = k
    # Turned by reversing both parts, then the whole: no copy.
    count = ring.shape[0]
    for low, high in ((0, least - 1), (least, count - 1), (0, count - 1)):
        while low < high:
            for k in range(2):
                ring[low, k], ring[high, k] = ring[high, k], ring[low, k]
            low, high = low + 1, high - 1


def _assemble(rings: list[_Rings], components: Components, scored: bool) -> list[Region]:
    """Group the rings into regions, and sort them."""
    heads = np.concatenate([part.points[part.starts] for part in rings]).astype(np.int64)
    # From its smallest (y, x), an exterior runs to the right, a hole downward.
    seconds = np.concatenate([part.points[part.starts + 1] for part in rings])
    is_hole = seconds[:, 1] != heads[:, 1]
    ids = np.concatenate([part.components for part in rings])
    rank = _rank_components(heads[~is_hole], ids[~is_hole], components.labels)
    order = np.lexsort((heads[:, 0], heads[:, 1], is_hole, rank[ids]))
    views = [
        part.points[start:stop]
        for part in rings
        for start, stop in zip(part.starts.tolist(), part.stops.tolist(), strict=True)
    ]
    views = [views[k] for k in order.tolist()]
    exteriors = np.flatnonzero(~is_hole[order])
    region_ids = ids[order[exteriors]]
    pixels, scores = components.sums[region_ids].T
    confidence = scores / (255.0 * pixels) if scored else np.ones(len(region_ids))
    columns = (components.labels[region_ids], pixels, confidence)
    bounds = pairwise([*exteriors.tolist(), len(views)])
    return [
        Region(label, views[i], tuple(views[i + 1 : j]), area, score)
        for label, area, score, (i, j) in zip(*(c.tolist() for c in columns), bounds, strict=True)
    ]


def _rank_components(
    heads: NDArray[np.int64], ids: NDArray[np.int64], labels: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Return the position of each component in the order of regions, by its exterior's head."""
    rank = np.full(len(labels), -1)
    rank[ids[np.lexsort((heads[:, 0], heads[:, 1], labels[ids]))]] = np.arange(len(ids))
    return rank
