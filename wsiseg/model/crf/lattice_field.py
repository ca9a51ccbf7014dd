"""The dense CRF on a CPU: mean field over the permutohedral lattice, in numba.

An iteration reads the image once. A row of messages is read out of the filtered lattice, goes
through the softmax, and is added to the next lattice at once, so that Q is never stored; only the
last iteration writes it. One image is one thread; a batch shares the threads out.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from wsiseg.config import CrfConfig
from wsiseg.model.crf.coarse_grid import coarse_axis, filter_grid
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
from wsiseg.model.crf.lattice import CORNERS, STRIP, Lattice, blur, build_lattice, compiled
from wsiseg.model.crf.window import MIN_PROBABILITY

__all__ = ["refine_batch"]

# Lattice and pixel weights of one image; with Q and the copies that halving needs, 400 MB.
_BYTES = 256 * 2**20
_MARGIN = 64

_FLOOR = np.float32(MIN_PROBABILITY)
_ZERO = np.float32(0)
_ONE = np.float32(1)


def refine_batch(
    probabilities: torch.Tensor,
    image: torch.Tensor,
    config: CrfConfig,
    corner: tuple[int, int] = (0, 0),
) -> torch.Tensor:
    """Mean field on the lattice; see `wsiseg.model.crf.refine` for the arguments."""
    prior = probabilities.cpu().contiguous().numpy()
    pixels = image.cpu().contiguous().numpy()
    out = np.empty(prior.shape, np.float32)

    def refine_one(i: int) -> None:
        _refine_image(prior[i], pixels[i], config, out[i], corner)

    workers = min(len(prior), torch.get_num_threads())
    if workers <= 1:
        for i in range(len(prior)):
            refine_one(i)
    else:
        with ThreadPoolExecutor(workers) as threads:
            list(threads.map(refine_one, range(len(prior))))  # waits, and raises what they raised
    return torch.from_numpy(out).to(probabilities.device)


def _refine_image(
    prior: NDArray[np.float32],
    image: NDArray[np.uint8],
    config: CrfConfig,
    out: NDArray[np.float32],
    corner: tuple[int, int],
) -> None:
    """Refine one `(C, H, W)` image into `out`; halve it where its lattice outgrows the memory."""
    classes, height, width = prior.shape
    lattice = build_lattice(
        np.ascontiguousarray(image),
        config.appearance_sxy,
        config.appearance_srgb,
        _most_points(height * width, classes),
        corner,
    )
    if lattice is None:
        _refine_halves(prior, image, config, out, corner)
        return
    _iterate(np.ascontiguousarray(prior), lattice, config, out)


def _most_points(pixels: int, classes: int) -> int:
    """Lattice points that the memory bound leaves room for; always enough for a small tile."""
    a_pixel = CORNERS * (4 + 4)
    a_point = CORNERS * 2 * 4 + 2 * _lanes_for(classes) * 4
    return max((_BYTES - a_pixel * pixels) // a_point, 2**19)


def _lanes_for(classes: int) -> int:
    """Lanes that hold the classes: whole vectors, the rest zero."""
    return -(-classes // LANES) * LANES


def _refine_halves(
    prior: NDArray[np.float32],
    image: NDArray[np.uint8],
    config: CrfConfig,
    out: NDArray[np.float32],
    corner: tuple[int, int],
) -> None:
    """Refine both halves of the longer side, each with a margin, and keep their inner parts."""
    axis = 1 if prior.shape[1] >= prior.shape[2] else 2
    size = prior.shape[axis]
    middle = size // 16 * 8  # where the coarse grid has a cell's edge
    for start, stop in ((0, middle), (middle, size)):
        first, last = max(start - _MARGIN, 0), min(stop + _MARGIN, size)
        cut = (slice(None),) * axis + (slice(first, last),)
        part = np.empty(prior[cut].shape, np.float32)
        x, y = (corner[0], corner[1] + first) if axis == 1 else (corner[0] + first, corner[1])
        _refine_image(prior[cut], image[cut], config, part, (x, y))
        inner = (slice(None),) * axis + (slice(start - first, stop - first),)
        out[(slice(None),) * axis + (slice(start, stop),)] = part[inner]


def _iterate(
    prior: NDArray[np.float32],
    lattice: Lattice,
    config: CrfConfig,
    out: NDArray[np.float32],
) -> None:
    classes, height, width = prior.shape
    lanes = _lanes_for(classes)
    down = coarse_axis(height, config.smooth_sxy)
    across = coarse_axis(width, config.smooth_sxy)
    value = np.zeros((lattice.points + 1) * lanes, np.float32)
    other = np.zeros_like(value)
    grid = np.zeros(down.cells * across.cells * lanes, np.float32)
    room = np.zeros_like(grid)
    strength = (np.float32(config.appearance_weight), np.float32(config.smooth_weight))
    for iteration in range(config.iterations + 1):
        source = (value, grid, iteration > 0)
        target = (other, room, iteration < config.iterations)
        _sweep(prior, lattice, down, across, strength, lanes, source, target, out)
        value, other, grid, room = other, value, room, grid
        if iteration < config.iterations:
            blur(value, other, lattice.near, lanes)
            filter_grid(grid, room, down.cells, across.cells, lanes, down.taps, across.taps)


@compiled
def _sweep(prior, lattice, down, across, strength, lanes, source, target, out):  # type: ignore[no-untyped-def] # numba infers
    """One reading of the image: messages in, softmax, values (or at last `out`) out."""
    _, height, width = prior.shape
    value, grid, receives = source
    total, sums, sends = target
    belief = np.zeros(min(width, STRIP) * lanes, np.float32)
    row = np.zeros(across.cells * lanes, np.float32)
    if sends:
        total[:] = _ZERO
        sums[:] = _ZERO
    for start in range(0, width, STRIP):
        end = min(start + STRIP, width)
        for y in range(height):
            _load_prior(prior[:, y, start:end], lanes, belief)
            first = start * height + y * (end - start)
            norm = down.norm[y]
            if receives:
                near = slice(across.left[start] * lanes, (across.left[end - 1] + 2) * lanes)
                _blend_rows(grid, down.left[y], down.share[y], near, row)
                _receive(
                    lattice, first, start, end, value, across, row, strength, norm, lanes, belief
                )
            _normalize(belief, lanes)
            if sends:
                cells = sums[down.cell[y] * len(row) :]
                _send(lattice, first, start, end, total, across, cells, norm, lanes, belief)
            else:
                _write(belief, lanes, out[:, y, start:end])


@compiled
def _load_prior(prior, lanes, belief):  # type: ignore[no-untyped-def] # numba infers
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
            here = _read(value, corner[pixel], weight[pixel], lanes, k)
            near = add_scaled(near, appearance, here)
            top = max(top, highest(near))
            store(message, k, near)
        for k in range(0, lanes, LANES):
            at = (x - start) * lanes + k
            store(belief, at, times(load(belief, at), exp(load(message, k), top)))


@compiled
def _read(value, corner, weight, lanes, k):  # type: ignore[no-untyped-def] # numba infers
    """A vector of a pixel's value on the lattice; written out, as LLVM does not unroll it."""
    here = scaled(weight[0], load(value, corner[0] * lanes + k))
    here = add_scaled(here, weight[1], load(value, corner[1] * lanes + k))
    here = add_scaled(here, weight[2], load(value, corner[2] * lanes + k))
    here = add_scaled(here, weight[3], load(value, corner[3] * lanes + k))
    here = add_scaled(here, weight[4], load(value, corner[4] * lanes + k))
    return add_scaled(here, weight[5], load(value, corner[5] * lanes + k))


@compiled
def _normalize(belief, lanes):  # type: ignore[no-untyped-def] # numba infers
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
