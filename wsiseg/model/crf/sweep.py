"""One reading of the image in an iteration: messages in, softmax, values out.

A row of messages is read out of the filtered lattice, goes through the softmax, and is added to the
next lattice at once, so that Q is never stored; only the last iteration writes it, or its labels.
Each of the three is a loop of its own over the row: no pixel waits for the one before.
"""

from __future__ import annotations

import numpy as np

from wsiseg.model.crf.lanes import (
    LANES,
    add_scaled,
    exp,
    highest,
    load,
    scaled,
    store,
    sum_of,
    times,
)
from wsiseg.model.crf.numbers import CORNERS
from wsiseg.model.crf.order import compiled
from wsiseg.model.crf.window import MIN_PROBABILITY

__all__ = [
    "lanes_for",
    "load_priors",
    "pick_class",
    "read_lattice",
    "soften",
    "sweep",
]

_FLOOR = np.float32(MIN_PROBABILITY)
_ZERO = np.float32(0)
_ONE = np.float32(1)


def lanes_for(classes: int) -> int:
    """Lanes that hold the classes: whole vectors, the rest zero."""
    return -(-classes // LANES) * LANES


@compiled
def load_priors(prior, kept, spans, scale, lanes, out):  # type: ignore[no-untyped-def] # numba infers
    """Write clipped probabilities of the classes `kept`, `scale` pixels apart, to flat `out`.

    `out` holds `pixels * lanes`; lanes beyond the classes stay as they are. NumPy asks for huge
    pages where numba does not, so large ones come from there: touching them costs a fifth.
    """
    for i in range(len(spans)):
        y, start, end, first = spans[i]
        for c in range(len(kept)):
            line = prior[kept[c], y * scale]
            at = first * lanes + c
            for x in range(start, end):
                out[at] = min(max(line[x * scale], _FLOOR), _ONE)
                at += lanes


@compiled
def sweep(priors, lattice, axes, strength, lanes, source, target, decided, classes, labels, q):  # type: ignore[no-untyped-def] # numba infers
    """One reading of the image: messages in, softmax, values out.

    Where nothing is to be sent, that is the end: the best of the `classes` goes to `labels`
    `(H, W)`, and Q to `q` `(C, H, W)` unless it is empty.
    """
    down, across = axes
    value, grid, receives = source
    total, sums, sends = target
    widest = np.max(lattice.spans[:, 2] - lattice.spans[:, 1])
    belief = np.zeros(widest * lanes, np.float32)
    row = np.zeros(across.cells * lanes, np.float32)
    if sends:
        total[:] = _ZERO
        sums[:] = decided
    for i in range(len(lattice.spans)):
        y, start, end, first = lattice.spans[i]
        norm = down.norm[y]
        if receives:
            near = slice(across.left[start] * lanes, (across.left[end - 1] + 2) * lanes)
            _blend_rows(grid, down.left[y], down.share[y], near, row)
            _receive(lattice, first, start, end, value, across, row, strength, norm, lanes, belief)
        else:
            belief[:] = _ZERO
        soften(priors, first * lanes, end - start, lanes, belief)
        if sends:
            cells = sums[down.cell[y] * len(row) :]
            _send(lattice, first, start, end, total, across, cells, norm, lanes, belief)
            continue
        for x in range(start, end):
            labels[y, x] = pick_class(belief, (x - start) * lanes, classes)
        for c in range(len(q)):
            for x in range(start, end):
                q[c, y, x] = belief[(x - start) * lanes + c]


@compiled
def _blend_rows(grid, cell, share, near, row):  # type: ignore[no-untyped-def] # numba infers
    """Between two rows of the coarse grid, `cell` and the next, for the cells in `near`."""
    upper = cell * len(row)
    lower = min(upper + len(row), len(grid) - len(row))
    for i in range(near.start, min(near.stop, len(row))):
        row[i] = grid[upper + i] + share * (grid[lower + i] - grid[upper + i])


@compiled
def _receive(lattice, first, start, end, value, across, row, strength, norm, lanes, belief):  # type: ignore[no-untyped-def] # numba infers
    """Write a row's messages: appearance of the lattice, smoothness of a row of the coarse grid."""
    corner, weight = lattice.corner.reshape(-1), lattice.weight.reshape(-1)
    appearance, smoothness = strength
    for x in range(start, end):
        at = (first + x - start) * CORNERS
        coarse = smoothness * norm * across.norm[x]
        for k in range(0, lanes, LANES):
            near = _read_row(row, across, x, coarse, lanes, k)
            message = read_lattice(value, corner, weight, at, lanes, k)
            store(belief, (x - start) * lanes + k, add_scaled(near, appearance, message))


@compiled
def _read_row(row, across, x, coarse, lanes, k):  # type: ignore[no-untyped-def] # numba infers
    """A vector of what pixel `x` reads of a row of the coarse grid, times `coarse`."""
    upper_share = coarse * across.share[x]
    left = across.left[x] * lanes
    right = min(left + lanes, len(row) - lanes)
    near = scaled(coarse - upper_share, load(row, left + k))
    return add_scaled(near, upper_share, load(row, right + k))


@compiled
def read_lattice(value, corner, weight, at, lanes, k):  # type: ignore[no-untyped-def] # numba infers
    """A vector of a pixel's value on the lattice; written out, as LLVM does not unroll it."""
    total = scaled(weight[at], load(value, corner[at] * lanes + k))
    total = add_scaled(total, weight[at + 1], load(value, corner[at + 1] * lanes + k))
    total = add_scaled(total, weight[at + 2], load(value, corner[at + 2] * lanes + k))
    total = add_scaled(total, weight[at + 3], load(value, corner[at + 3] * lanes + k))
    total = add_scaled(total, weight[at + 4], load(value, corner[at + 4] * lanes + k))
    return add_scaled(total, weight[at + 5], load(value, corner[at + 5] * lanes + k))


@compiled
def soften(priors, first, pixels, lanes, belief):  # type: ignore[no-untyped-def] # numba infers
    """Messages to probabilities: times the priors from `first` on, each pixel's sum made one."""
    if lanes == LANES:  # one vector a pixel: all of it stays in registers
        for at in range(0, pixels * LANES, LANES):
            message = load(belief, at)
            top = max(_ZERO, highest(message))  # messages are never negative
            product = times(load(priors, first + at), exp(message, top))
            store(belief, at, scaled(_ONE / sum_of(product), product))
        return
    for at in range(0, pixels * lanes, lanes):
        top, total = _ZERO, _ZERO
        for k in range(at, at + lanes, LANES):
            top = max(top, highest(load(belief, k)))
        for k in range(at, at + lanes, LANES):
            product = times(load(priors, first + k), exp(load(belief, k), top))
            total += sum_of(product)
            store(belief, k, product)
        for k in range(at, at + lanes, LANES):
            store(belief, k, scaled(_ONE / total, load(belief, k)))


@compiled
def pick_class(belief, at, classes):  # type: ignore[no-untyped-def] # numba infers
    """The lane of the largest belief; of equals the first."""
    best = 0
    for c in range(1, classes):
        best = c if belief[at + c] > belief[at + best] else best
    return np.uint8(best)


@compiled
def _send(lattice, first, start, end, total, across, cells, norm, lanes, belief):  # type: ignore[no-untyped-def] # numba infers
    """Add a row's beliefs, times their norms, to the lattice and to a row of cells."""
    corner, weight = lattice.corner.reshape(-1), lattice.weight.reshape(-1)
    for x in range(start, end):
        pixel = (first + x - start) * CORNERS
        cell = across.cell[x] * lanes
        factor = norm * across.norm[x]
        for k in range(0, lanes, LANES):
            shares = load(belief, (x - start) * lanes + k)
            for i in range(pixel, pixel + CORNERS):
                at = corner[i] * lanes + k
                store(total, at, add_scaled(load(total, at), weight[i], shares))
            store(cells, cell + k, add_scaled(load(cells, cell + k), factor, shares))
