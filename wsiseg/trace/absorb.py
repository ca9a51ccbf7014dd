"""Absorb small components into their neighbours by relabelling, which leaves no gaps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from wsiseg.kernels import kernel
from wsiseg.trace.contacts import Contacts, sum_pairs
from wsiseg.trace.merge import Components, join_components
from wsiseg.trace.sets import join_roots, number_roots

__all__ = ["absorb_small"]


def absorb_small(
    contacts: Mapping[int, Contacts],
    columns: int,
    limits: NDArray[np.float64],
    background: int,
) -> dict[int, NDArray[np.uint8]]:
    """Relabel every block's components, so that none is smaller than its label's limit.

    In rounds, from the large regions outward, each small component (also a hole) gets the label
    with which it shares the longest border; on ties, the lower label. Small components that no
    large region reaches form an island: if its tissue together reaches the limit, it gets the label
    of its largest component (on ties, the lower label), otherwise it becomes background. So tissue
    becomes background only as whole islands below the limit. Everything outside the raster is
    background, and large: only enclosed background is a hole.

    Parameters
    ----------
    contacts
        Contacts of *every* block by row-major index, found with the same `limits`.
    columns
        Number of blocks in a row.
    limits
        ``(256,)`` smallest number of pixels by label.

    Returns
    -------
    dict
        ``(C,)`` uint8 by block: the new label of each of its components.
    """
    contacts = dict(sorted(contacts.items()))
    components = join_components({i: block.parts for i, block in contacts.items()}, columns)
    small = components.sums[:, 0] < limits[components.labels]
    outside = contacts[0].parts.edges.above[:1]  # the pixel above and to the left of the first
    small[components.of_block(0, outside)] = False
    pairs = np.concatenate([components.of_block(i, block.pairs) for i, block in contacts.items()])
    lengths = np.concatenate([block.lengths for block in contacts.values()])
    kept = small[pairs].any(axis=1)
    pairs, lengths = sum_pairs(pairs[kept], lengths[kept])
    small[_keep_islands(components, small, pairs, limits, background)] = False
    # In both directions, sorted by the first, so that each component's contacts are contiguous.
    directed = np.concatenate([pairs, pairs[:, ::-1]])
    order = np.lexsort((directed[:, 1], directed[:, 0]))
    directed, lengths = directed[order], np.concatenate([lengths, lengths])[order]
    begins = np.searchsorted(directed[:, 0], np.arange(len(small) + 1))
    seeds = ~small & (components.labels != background)
    labels = np.where(small, background, components.labels).astype(np.uint8)
    _spread_labels(labels, small, seeds, begins, directed[:, 1].copy(), lengths)
    return {
        i: labels[components.of_block(i, np.arange(len(block.parts.labels)))]
        for i, block in contacts.items()
    }


def _keep_islands(
    components: Components,
    small: NDArray[np.bool_],
    pairs: NDArray[np.integer],
    limits: NDArray[np.float64],
    background: int,
) -> NDArray[np.int64]:
    """Return the largest component of each island that reaches its label's limit as a whole.

    Which of two that are equally large does not matter if their labels are the same: the whole
    island gets that label.
    """
    labels, areas = components.labels, components.sums[:, 0]
    island, tissue = np.arange(len(small)), labels != background
    _join_pairs(island, pairs[small[pairs].all(axis=1)])
    count = number_roots(island)
    seeded = np.zeros(count, bool)
    seeded[island[pairs[(~small & tissue)[pairs].any(axis=1)]]] = True
    totals = np.bincount(island, np.where(tissue, areas, 0), count)
    numbers = np.flatnonzero(small & tissue & ~seeded[island] & (totals[island] >= limits[labels]))
    order = np.lexsort((labels[numbers], -areas[numbers], island[numbers]))
    _, first = np.unique(island[numbers[order]], return_index=True)
    return numbers[order[first]]


@kernel
def _join_pairs(parent, pairs):  # type: ignore[no-untyped-def]  # numba infers the types
    for k in range(pairs.shape[0]):
        join_roots(parent, pairs[k, 0], pairs[k, 1])


@kernel
def _spread_labels(labels, small, seeds, begins, others, lengths):  # type: ignore[no-untyped-def]  # numba infers the types
    """Give small components the labels around them, in rounds outward from the `seeds`."""
    settled, queued = seeds.copy(), seeds.copy()
    waiting, following = np.flatnonzero(seeds), np.empty(labels.size, np.int64)
    while waiting.size:
        count = 0
        for i in waiting:
            settled[i] = True
            for other in others[begins[i] : begins[i + 1]]:
                if small[other] and not queued[other]:
                    queued[other] = True
                    following[count] = other
                    count += 1
        waiting = following[:count].copy()
        # A round sees only what earlier ones settled: the order within a round does not matter.
        for i in waiting:
            labels[i] = _choose_label(i, labels, settled, begins, others, lengths)


@kernel
def _choose_label(i, labels, settled, begins, others, lengths):  # type: ignore[no-untyped-def]  # numba infers the types
    shared = np.zeros(256, np.int64)
    for k in range(begins[i], begins[i + 1]):
        if settled[others[k]]:
            shared[labels[others[k]]] += lengths[k]
    return np.argmax(shared)
