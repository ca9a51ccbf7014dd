"""Small components give way to their neighbours: a relabelling that leaves no gaps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from wsiseg.kernels import kernel
from wsiseg.trace.contacts import Contacts, sum_pairs
from wsiseg.trace.merge import join_components

__all__ = ["absorb_small"]


def absorb_small(
    contacts: Mapping[int, Contacts],
    columns: int,
    limits: NDArray[np.float64],
    background: int,
) -> dict[int, NDArray[np.uint8]]:
    """New labels of every block's components, such that none is smaller than its label's limit.

    From the large regions outward, in rounds, each small component (a hole too) takes the class
    with which it shares the longest border, of equals the lower label. What no large region
    reaches is an island of small ones and becomes background; so tissue becomes background
    only as whole islands. Outside of the raster is background, and large: only background that is
    enclosed is a hole.

    Parameters
    ----------
    contacts
        Contacts of *every* block by row-major index, found with the same `limits`.
    columns
        Blocks in a row of blocks.
    limits
        ``(256,)`` pixels by label.

    Returns
    -------
    dict
        ``(C,)`` uint8 by block: the new label of each of its components.
    """
    contacts = dict(sorted(contacts.items()))
    components = join_components({i: found.parts for i, found in contacts.items()}, columns)
    small = components.sums[:, 0] < limits[components.labels]
    outside = contacts[0].parts.edges.above[:1]  # the pixel above and to the left of the first
    small[components.of_block(0, outside)] = False
    pairs = np.concatenate([components.of_block(i, c.pairs) for i, c in contacts.items()])
    lengths = np.concatenate([found.lengths for found in contacts.values()])
    kept = small[pairs].any(axis=1)
    pairs, lengths = sum_pairs(pairs[kept], lengths[kept])
    # Both ways, sorted by the first: the contacts of one component lie together.
    ways = np.concatenate([pairs, pairs[:, ::-1]])
    order = np.lexsort((ways[:, 1], ways[:, 0]))
    ways, lengths = ways[order], np.concatenate([lengths, lengths])[order]
    begins = np.searchsorted(ways[:, 0], np.arange(len(small) + 1))
    seeds = ~small & (components.labels != background)
    labels = np.where(small, background, components.labels).astype(np.uint8)
    _spread_labels(labels, small, seeds, begins, ways[:, 1].copy(), lengths)
    return {
        i: labels[components.of_block(i, np.arange(len(found.parts.labels)))]
        for i, found in contacts.items()
    }


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
