"""One reading of the image in an iteration: messages in, softmax, values out.

A row of messages is read out of the filtered lattice, goes through the softmax, and is added to the
next lattice at once, so that Q is never stored; only the last iteration writes it.
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
from wsiseg.model.crf.lattice import compiled
from wsiseg.model.crf.numbers import CORNERS
from wsiseg.model.crf.window import MIN_PROBABILITY

__all__ = ["hear", "lanes_for", "load_prior", "normalize", "read_lattice", "sweep"]

_FLOOR = np.float32(MIN_PROBABILITY)
_ZERO = np.float32(0)
_ONE = np.float32(1)


def lanes_for(classes: int) -> int:
    """Lanes that hold the classes: whole vectors, the rest zero."""
    return -(-classes // LANES) * LANES


@compiled
def sweep(prior, lattice, down, across, strength, lanes, source, target, decided, out):  # type: ignore[no-untyped-def] # numba infers
    """One reading of the image: messages in, softmax, values (or at last `out`) out."""
    value, grid, receives = source
    total, sums, sends = target
    belief = np.zeros(prior.shape[2] * lanes, np.float32)
    row = np.zeros(across.cells * lanes, np.float32)
    if sends:
        total[:] = _ZERO
        sums[:] = decided
    for i in range(len(lattice.spans)):
        y, start, end, first = lattice.spans[i]
        load_prior(prior[:, y, start:end], lanes, belief)
        norm = down.norm[y]
        if receives:
            near = slice(across.left[start] * lanes, (across.left[end - 1] + 2) * lanes)
            _blend_rows(grid, down.left[y], down.share[y], near, row)
            _receive(lattice, first, start, end, value, across, row, strength, norm, lanes, belief)
        normalize(belief[: (end - start) * lanes], lanes)
        if sends:
            cells = sums[down.cell[y] * len(row) :]
            _send(lattice, first, start, end, total, across, cells, norm, lanes, belief)
        else:
            _write(belief, lanes, out[:, y, start:end])


@compiled
def load_prior(prior, lanes, belief):  # type: ignore[no-untyped-def] # numba infers
    """Clip `(C, W)` probabilities into lanes."""
    for c in range(prior.shape[0]):
        for x in range(prior.shape[1]):
            belief[x * lanes + c] = min(max(prior[c, x], _FLOOR), _ONE)


@compiled
def _write(belief, lanes, out):  # type: ignore[no-untyped-def] # numba infers
    """Lanes to `(C, W)`."""
    for c in range(out.shape[0]):
        for x in range(out.shape[1]):
            out[c, x] = belief[x * lanes + c]


@compiled
def _blend_rows(grid, cell, share, near, row):  # type: ignore[no-untyped-def] # numba infers
    """Between two rows of the coarse grid, `cell` and the next, for the cells in `near`."""
    upper = cell * len(row)
    lower = min(upper + len(row), len(grid) - len(row))
    for i in range(near.start, min(near.stop, len(row))):
        row[i] = grid[upper + i] + share * (grid[lower + i] - grid[upper + i])


@compiled
def _receive(lattice, first, start, end, value, across, row, strength, norm, lanes, belief):  # type: ignore[no-untyped-def] # numba infers
    """Multiply a row's priors by exp(messages), up to a factor a pixel.

    Appearance comes from the lattice, smoothness from a row of the coarse grid.
    """
    corner, weight = lattice.corner, lattice.weight
    appearance, smoothness = strength
    message = np.empty(lanes, np.float32)
    for x in range(start, end):
        pixel = first + x - start
        coarse = smoothness * norm * across.norm[x]
        upper_share = coarse * across.share[x]
        left = across.left[x] * lanes
        right = min(left + lanes, len(row) - lanes)
        top = _ZERO  # messages are never negative
        for k in range(0, lanes, LANES):
            near = scaled(coarse - upper_share, load(row, left + k))
            near = add_scaled(near, upper_share, load(row, right + k))
            here = read_lattice(value, corner[pixel], weight[pixel], lanes, k)
            near = add_scaled(near, appearance, here)
            top = max(top, highest(near))
            store(message, k, near)
        hear(message, top, belief, (x - start) * lanes)


@compiled
def hear(message, top, belief, at):  # type: ignore[no-untyped-def] # numba infers
    """Multiply the belief at `at` by exp(message - top)."""
    for k in range(0, len(message), LANES):
        heard = exp(load(message, k), top)
        store(belief, at + k, times(load(belief, at + k), heard))


@compiled
def read_lattice(value, corner, weight, lanes, k):  # type: ignore[no-untyped-def] # numba infers
    """A vector of a pixel's value on the lattice; written out, as LLVM does not unroll it."""
    here = scaled(weight[0], load(value, corner[0] * lanes + k))
    here = add_scaled(here, weight[1], load(value, corner[1] * lanes + k))
    here = add_scaled(here, weight[2], load(value, corner[2] * lanes + k))
    here = add_scaled(here, weight[3], load(value, corner[3] * lanes + k))
    here = add_scaled(here, weight[4], load(value, corner[4] * lanes + k))
    return add_scaled(here, weight[5], load(value, corner[5] * lanes + k))


@compiled
def normalize(belief, lanes):  # type: ignore[no-untyped-def] # numba infers
    """Make each pixel's lanes sum to one."""
    for start in range(0, len(belief), lanes):
        total = _ZERO
        for k in range(start, start + lanes, LANES):
            total += sum_of(load(belief, k))
        for k in range(start, start + lanes, LANES):
            store(belief, k, scaled(_ONE / total, load(belief, k)))


@compiled
def _send(lattice, first, start, end, total, across, cells, norm, lanes, belief):  # type: ignore[no-untyped-def] # numba infers
    """Add a row's beliefs, times their norms, to the lattice and to a row of cells."""
    corner, weight = lattice.corner, lattice.weight
    for x in range(start, end):
        pixel = first + x - start
        cell = across.cell[x] * lanes
        factor = norm * across.norm[x]
        for k in range(0, lanes, LANES):
            here = load(belief, (x - start) * lanes + k)
            for i in range(CORNERS):
                at = corner[pixel, i] * lanes + k
                store(total, at, add_scaled(load(total, at), weight[pixel, i], here))
            store(cells, cell + k, add_scaled(load(cells, cell + k), factor, here))
