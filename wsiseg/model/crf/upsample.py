"""From the labels of the pixels that the CRF worked on to those of all: joint-bilateral.

Where a pixel worked on agrees with all its neighbours, those beside it are labelled as it is.
Elsewhere each of these reads the last messages at its own place and colour, on the CRF's own
lattice, as the others did, and weighs its own prior with them.
"""

from __future__ import annotations

import numpy as np

from wsiseg.model.crf.lanes import LANES, add_scaled, load, scaled, store
from wsiseg.model.crf.lattice import find_simplices, find_slot, list_corners
from wsiseg.model.crf.numbers import CORNERS
from wsiseg.model.crf.order import compiled
from wsiseg.model.crf.sweep import load_priors, pick_class, read_lattice, soften

__all__ = ["upsample"]

_ZERO = np.float32(0)
_ONE = np.float32(1)


@compiled
def upsample(prior, image, thin, kept, lattice, numbers, messages, axes, strength, scale, labels):  # type: ignore[no-untyped-def] # numba infers
    """Write the labels `(H, W)` of all pixels of the lattice's spans.

    `image` is `(H, W, 3)`; `thin` are the labels of one pixel in `scale`, as places in `kept`;
    `messages` the lattice's and the coarse grid's values.
    """
    height, width = labels.shape
    lanes = -(-len(kept) // LANES) * LANES
    plain = np.empty(thin.shape[1], np.bool_)
    at = np.empty(width, np.int64)
    spans = np.empty((width, 4), np.int32)
    columns = np.empty(width, np.float32)
    colours = np.empty((3, width), np.uint8)
    belief = np.zeros(width * lanes, np.float32)
    priors = np.zeros(width * lanes, np.float32)
    place = (
        np.empty((CORNERS, width), np.float32),
        np.empty((CORNERS, width), np.int32),
        np.empty((CORNERS, width), np.int32),
    )
    for i in range(len(lattice.spans)):
        y, start, end, _ = lattice.spans[i]
        for x in range(start, end):
            plain[x] = _is_plain(thin, y, x)
        for v in range(y * scale, min((y + 1) * scale, height)):
            count = 0
            for x in range(start, end):
                for u in range(x * scale, min((x + 1) * scale, width)):
                    if plain[x] or (v == y * scale and u == x * scale):
                        labels[v, u] = kept[thin[y, x]]
                        continue
                    at[count] = u
                    columns[count] = np.float32(u) / np.float32(scale)
                    for c in range(3):
                        colours[c, count] = image[v, u, c]
                    spans[count] = (v, u, u + 1, count)
                    count += 1
            if count:
                row = np.float32(v) / np.float32(scale)
                find_simplices(colours[:, :count], columns, row, numbers, *place)
                _hear_places(
                    place, at[:count], v, lattice, numbers, messages, axes, strength, lanes, belief
                )
                load_priors(prior, kept, spans[:count], 1, lanes, priors)
                soften(priors, 0, count, lanes, belief)
                for j in range(count):
                    labels[v, at[j]] = kept[pick_class(belief, j * lanes, len(kept))]


@compiled
def _is_plain(labels, y, x):  # type: ignore[no-untyped-def] # numba infers
    """Whether a pixel's neighbours are all labelled as it is."""
    label = labels[y, x]
    for v in range(max(y - 1, 0), min(y + 2, labels.shape[0])):
        for u in range(max(x - 1, 0), min(x + 2, labels.shape[1])):
            if labels[v, u] != label:
                return False
    return True


@compiled
def _hear_places(place, at, v, lattice, numbers, messages, axes, strength, lanes, belief):  # type: ignore[no-untyped-def] # numba infers
    """Write the messages that pixels `at` of row `v` receive."""
    rest, rank, origin = place
    value, grid = messages
    down, across = axes
    appearance, smoothness = strength
    keys, corner = np.empty(CORNERS, np.int64), np.empty(CORNERS, np.int64)
    weight = np.empty(CORNERS, np.float32)
    order, ranked = np.empty(CORNERS, np.int64), np.empty(CORNERS, np.float32)
    upper = down.left[v]
    lower = min(upper + 1, down.cells - 1)
    for j in range(len(at)):
        list_corners(rest, rank, origin, j, numbers, order, ranked, keys, weight)
        reach = _ZERO
        for i in range(CORNERS):
            slot = find_slot(keys[i], lattice.table.held, numbers.bits)
            known = lattice.table.held[slot] >= 0
            corner[i] = lattice.table.point[slot] if known else len(lattice.reach) - 1
            reach += weight[i] * lattice.reach[corner[i]]
        # A colour that no pixel worked on comes near hears of none.
        norm = appearance / np.sqrt(reach) if reach > _ZERO else _ZERO
        u = at[j]
        left = across.left[u]
        right = min(left + 1, across.cells - 1)
        coarse = smoothness * down.norm[v] * across.norm[u]
        low = coarse * down.share[v]
        for k in range(0, lanes, LANES):
            first = (upper * across.cells + left) * lanes + k
            near = scaled((coarse - low) * (_ONE - across.share[u]), load(grid, first))
            first = (upper * across.cells + right) * lanes + k
            near = add_scaled(near, (coarse - low) * across.share[u], load(grid, first))
            first = (lower * across.cells + left) * lanes + k
            near = add_scaled(near, low * (_ONE - across.share[u]), load(grid, first))
            first = (lower * across.cells + right) * lanes + k
            near = add_scaled(near, low * across.share[u], load(grid, first))
            near = add_scaled(near, norm, read_lattice(value, corner, weight, 0, lanes, k))
            store(belief, j * lanes + k, near)
