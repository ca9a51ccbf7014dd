"""From the pixels that the CRF worked on to all: joint-bilateral, on the CRF's own lattice.

Where the pixels worked on agree with all their neighbours, those between them get what they have.
Elsewhere a pixel reads the last messages at its own place and colour, as the others did, and weighs
its own prior with them.
"""

from __future__ import annotations

import numpy as np

from wsiseg.model.crf.lanes import LANES, add_scaled, highest, load, scaled, store
from wsiseg.model.crf.lattice import compiled, find_simplices, find_slot, list_corners
from wsiseg.model.crf.numbers import CORNERS
from wsiseg.model.crf.sweep import hear, load_prior, normalize, read_lattice

__all__ = ["upsample"]

_ZERO = np.float32(0)
_ONE = np.float32(1)


@compiled
def upsample(prior, image, q, labels, lattice, numbers, messages, axes, strength, scale, out):  # type: ignore[no-untyped-def] # numba infers
    """Write `(C, H, W)` Q of all pixels of the lattice's spans, from that of one in `scale`.

    `labels` are those of `q`; `messages` the lattice's and the coarse grid's values.
    """
    classes, height, width = prior.shape
    down, across = axes
    lanes = -(-classes // LANES) * LANES
    at = np.empty(width, np.int64)
    columns = np.empty(width, np.float32)
    colours = np.empty((3, width), np.uint8)
    chosen = np.empty((classes, width), np.float32)
    belief = np.zeros(width * lanes, np.float32)
    rest = np.empty((CORNERS, width), np.float32)
    rank = np.empty((CORNERS, width), np.int32)
    origin = np.empty((CORNERS, width), np.int32)
    for i in range(len(lattice.spans)):
        y, start, end, _ = lattice.spans[i]
        for v in range(y * scale, min((y + 1) * scale, height)):
            count = 0
            for x in range(start, end):
                plain = _is_plain(labels, y, x)
                for u in range(x * scale, min((x + 1) * scale, width)):
                    if plain:
                        for c in range(classes):
                            out[c, v, u] = q[c, y, x]
                    else:
                        at[count] = u
                        columns[count] = np.float32(u) / np.float32(scale)
                        for c in range(3):
                            colours[c, count] = image[c, v, u]
                        for c in range(classes):
                            chosen[c, count] = prior[c, v, u]
                        count += 1
            if count:
                row = np.float32(v) / np.float32(scale)
                found = colours[:, :count]
                find_simplices(found, columns, row, numbers, rest, rank, origin)
                load_prior(chosen[:, :count], lanes, belief)
                place = (rest, rank, origin)
                _hear_places(
                    place, at[:count], v, lattice, numbers, messages, down, across, strength, lanes,
                    belief,
                )  # fmt: skip
                normalize(belief[: count * lanes], lanes)
                for c in range(classes):
                    for j in range(count):
                        out[c, v, at[j]] = belief[j * lanes + c]


@compiled
def _is_plain(labels, y, x):  # type: ignore[no-untyped-def] # numba infers
    """Whether a pixel's neighbours are all labelled as it is."""
    here = labels[y, x]
    for v in range(max(y - 1, 0), min(y + 2, labels.shape[0])):
        for u in range(max(x - 1, 0), min(x + 2, labels.shape[1])):
            if labels[v, u] != here:
                return False
    return True


@compiled
def _hear_places(place, at, v, lattice, numbers, messages, down, across, strength, lanes, belief):  # type: ignore[no-untyped-def] # numba infers
    """Multiply the beliefs of pixels `at` of row `v` by exp(messages)."""
    rest, rank, origin = place
    value, grid = messages
    appearance, smoothness = strength
    keys, corner = np.empty(CORNERS, np.int64), np.empty(CORNERS, np.int64)
    weight = np.empty(CORNERS, np.float32)
    order, ranked = np.empty(CORNERS, np.int64), np.empty(CORNERS, np.float32)
    message = np.empty(lanes, np.float32)
    upper = down.left[v]
    lower = min(upper + 1, down.cells - 1)
    for j in range(len(at)):
        list_corners(rest, rank, origin, j, numbers, order, ranked, keys, weight)
        reach = _ZERO
        for i in range(CORNERS):
            point = lattice.table[find_slot(keys[i], lattice.keys, lattice.table, numbers.bits)]
            corner[i] = point if point >= 0 else len(lattice.keys)
            reach += weight[i] * lattice.reach[corner[i]]
        # A colour that no pixel worked on comes near hears of none.
        norm = appearance / np.sqrt(reach) if reach > _ZERO else _ZERO
        u = at[j]
        left = across.left[u]
        right = min(left + 1, across.cells - 1)
        coarse = smoothness * down.norm[v] * across.norm[u]
        low = coarse * down.share[v]
        top = _ZERO
        for k in range(0, lanes, LANES):
            first = (upper * across.cells + left) * lanes + k
            near = scaled((coarse - low) * (_ONE - across.share[u]), load(grid, first))
            first = (upper * across.cells + right) * lanes + k
            near = add_scaled(near, (coarse - low) * across.share[u], load(grid, first))
            first = (lower * across.cells + left) * lanes + k
            near = add_scaled(near, low * (_ONE - across.share[u]), load(grid, first))
            first = (lower * across.cells + right) * lanes + k
            near = add_scaled(near, low * across.share[u], load(grid, first))
            near = add_scaled(near, norm, read_lattice(value, corner, weight, lanes, k))
            top = max(top, highest(near))
            store(message, k, near)
        hear(message, top, belief, j * lanes)
