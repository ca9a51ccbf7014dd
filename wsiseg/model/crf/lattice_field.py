"""The dense CRF on a CPU: mean field over the permutohedral lattice, in numba.

One image is one thread; a batch shares the threads out. Where only labels are wanted, classes that
no pixel may have are left out. With `scale` 2 one pixel in four then sends and hears messages, on
the lattice of them all; where a border runs, every pixel reads the last messages at its own place
and colour. With a `band`, what is far from any border is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from wsiseg.config import CrfConfig
from wsiseg.model.crf.blur import blur
from wsiseg.model.crf.coarse_grid import coarse_axis, filter_grid
from wsiseg.model.crf.lattice import Lattice, build_lattice
from wsiseg.model.crf.numbers import CORNERS, Numbers, number_points
from wsiseg.model.crf.region import (
    Region,
    find_region,
    pick_classes,
    sum_decided,
    whole_region,
)
from wsiseg.model.crf.sweep import lanes_for, load_priors, sweep
from wsiseg.model.crf.upsample import upsample
from wsiseg.model.crf.window import MIN_PROBABILITY

__all__ = ["label_batch", "refine_batch"]

# Lattice, hash table, priors and weights of one image; what halving copies comes on top.
_BYTES = 384 * 2**20
_TABLE_BYTES = 40
"""A point's share of the hash table, free slots included."""
_MARGIN = 64
_NO_Q = np.empty((0, 0, 0), np.float32)


def refine_batch(
    probabilities: torch.Tensor,
    image: torch.Tensor,
    config: CrfConfig,
    corner: tuple[int, int] = (0, 0),
) -> torch.Tensor:
    """Mean field on the lattice; see `wsiseg.model.crf.refine` for the arguments."""
    prior = probabilities.cpu().contiguous().numpy()
    pixels = image.cpu().numpy()
    out = np.empty(prior.shape, np.float32)
    every = np.arange(prior.shape[1])
    whole = config.model_copy(update={"scale": 1, "band": 0})

    def refine_one(i: int) -> None:
        _refine_image(prior[i], pixels[i], every, whole, corner, pick_classes(prior[i]), out[i])

    _for_each(len(prior), refine_one)
    return torch.from_numpy(out).to(probabilities.device)


def label_batch(
    probabilities: torch.Tensor,
    image: torch.Tensor,
    config: CrfConfig,
    corner: tuple[int, int] = (0, 0),
    winners: torch.Tensor | None = None,
) -> torch.Tensor:
    """Labels only; see `wsiseg.model.crf.refine_labels` for the arguments."""
    prior = probabilities.cpu().contiguous().numpy()
    pixels = image.cpu().numpy()
    if winners is None:
        out = np.stack([pick_classes(one) for one in prior])
    else:
        out = winners.cpu().numpy().copy()

    def label_one(i: int) -> None:
        kept = np.flatnonzero([np.any(one > MIN_PROBABILITY) for one in prior[i]])
        if len(kept) > 1 and config.iterations:
            _refine_image(prior[i], pixels[i], kept, config, corner, out[i], _NO_Q)

    _for_each(len(prior), label_one)
    return torch.from_numpy(out).to(probabilities.device)


def _for_each(count: int, work: Callable[[int], None]) -> None:
    workers = min(count, torch.get_num_threads())
    if workers <= 1:
        for i in range(count):
            work(i)
    else:
        with ThreadPoolExecutor(workers) as threads:
            list(threads.map(work, range(count)))  # waits, and raises what they raised


def _refine_image(
    prior: NDArray[np.float32],
    image: NDArray[np.uint8],
    kept: NDArray[np.int64],
    config: CrfConfig,
    corner: tuple[int, int],
    labels: NDArray[np.uint8],
    q: NDArray[np.float32],
) -> None:
    """Refine the most probable classes, `(H, W)`, and unless it is empty fill `q`, `(C, H, W)`.

    The other classes than those `kept` are possible nowhere. An image whose lattice outgrows the
    memory is halved.
    """
    scale = config.scale
    lane = np.zeros(prior.shape[0], np.uint8)
    lane[kept] = np.arange(len(kept))
    thin = lane[labels[::scale, ::scale]]
    height, width = thin.shape
    region = find_region(thin, config.band, scale) if config.band else whole_region(height, width)
    if not region.pixels:
        return
    sxy = config.appearance_sxy / scale
    place = (corner[0] / scale, corner[1] / scale)
    numbers = number_points(height, width, sxy, config.appearance_srgb, place)
    pixels = np.ascontiguousarray(image[:, ::scale, ::scale])
    max_points = _most_points(region.pixels, len(kept))
    lattice = build_lattice(pixels, region.spans, numbers, max_points)
    if lattice is None:
        _refine_halves(prior, image, kept, config, corner, labels, q)
        return
    messages = _iterate(prior, kept, region, lattice, config, thin, q)
    if scale == 1:
        labels[:] = kept[thin]
    else:
        _upsample(prior, image, thin, kept, lattice, numbers, messages, config, labels)


def _most_points(pixels: int, classes: int) -> int:
    """Lattice points that the memory bound leaves room for; always enough for a small tile."""
    lanes = lanes_for(classes)
    a_pixel = CORNERS * (4 + 4) + lanes * 4
    a_point = CORNERS * 2 * 4 + 2 * lanes * 4 + _TABLE_BYTES
    return max((_BYTES - a_pixel * pixels) // a_point, 2**19)


def _refine_halves(
    prior: NDArray[np.float32],
    image: NDArray[np.uint8],
    kept: NDArray[np.int64],
    config: CrfConfig,
    corner: tuple[int, int],
    labels: NDArray[np.uint8],
    q: NDArray[np.float32],
) -> None:
    """Refine both halves of the longer side, each with a margin, and keep their inner parts."""
    axis = 0 if labels.shape[0] >= labels.shape[1] else 1
    size = labels.shape[axis]
    middle = size // 16 * 8  # where the coarse grid has a cell's edge
    before = labels.copy()
    for start, stop in ((0, middle), (middle, size)):
        first, last = max(start - _MARGIN, 0), min(stop + _MARGIN, size)
        cut = (slice(None),) * axis + (slice(first, last),)
        part, part_q = before[cut].copy(), np.empty_like(q[(slice(None), *cut)])
        x, y = (corner[0], corner[1] + first) if axis == 0 else (corner[0] + first, corner[1])
        inside = np.ascontiguousarray(prior[(slice(None), *cut)])
        _refine_image(inside, image[(slice(None), *cut)], kept, config, (x, y), part, part_q)
        inner = (slice(None),) * axis + (slice(start - first, stop - first),)
        kept_part = (slice(None),) * axis + (slice(start, stop),)
        labels[kept_part] = part[inner]
        q[(slice(None), *kept_part)] = part_q[(slice(None), *inner)]


def _iterate(
    prior: NDArray[np.float32],
    kept: NDArray[np.int64],
    region: Region,
    lattice: Lattice,
    config: CrfConfig,
    labels: NDArray[np.uint8],
    q: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Write the region's labels, places in `kept`, and `q` unless it is empty.

    Returns what the last messages were read of: the lattice's and the coarse grid's values.
    """
    height, width = labels.shape
    lanes = lanes_for(len(kept))
    down = coarse_axis(height, config.smooth_sxy / config.scale, config.scale)
    across = coarse_axis(width, config.smooth_sxy / config.scale, config.scale)
    value, other = (_zeros((lattice.points + 1) * lanes) for _ in range(2))
    grid, buffer = (_zeros(down.cells * across.cells * lanes) for _ in range(2))
    decided = np.zeros_like(grid)
    sum_decided(labels, region.inside, region.cell, down, across, lanes, decided)
    priors = _zeros(region.pixels * lanes)
    load_priors(prior, kept, region.spans, config.scale, lanes, priors)
    strength = (np.float32(config.appearance_weight), np.float32(config.smooth_weight))
    for iteration in range(config.iterations + 1):
        source = (value, grid, iteration > 0)
        target = (other, buffer, iteration < config.iterations)
        sweep(
            priors, lattice, (down, across), strength, lanes, source, target, decided, len(kept),
            labels, q,
        )  # fmt: skip
        if iteration < config.iterations:
            value, other, grid, buffer = other, value, buffer, grid
            blur(value, other, lattice.near, lattice.rows, lanes)
            filter_grid(grid, buffer, down.cells, across.cells, lanes, down.taps, across.taps)
    return value, grid


def _zeros(size: int) -> NDArray[np.float32]:
    """Zeros that begin where a line of the cache does, so that no vector lies across two."""
    buffer = np.zeros(size + 16, np.float32)
    first = -buffer.ctypes.data % 64 // 4
    return buffer[first : first + size]


def _upsample(
    prior: NDArray[np.float32],
    image: NDArray[np.uint8],
    thin: NDArray[np.uint8],
    kept: NDArray[np.int64],
    lattice: Lattice,
    numbers: Numbers,
    messages: tuple[NDArray[np.float32], NDArray[np.float32]],
    config: CrfConfig,
    labels: NDArray[np.uint8],
) -> None:
    """Write the label of every pixel of the region from those of the pixels worked on."""
    scale = config.scale
    height, width = thin.shape
    down = coarse_axis(height, config.smooth_sxy / scale, scale, scale)
    across = coarse_axis(width, config.smooth_sxy / scale, scale, scale)
    strength = (np.float32(config.appearance_weight), np.float32(config.smooth_weight))
    colours = np.ascontiguousarray(np.moveaxis(image, 0, -1))
    upsample(
        prior, colours, thin, kept, lattice, numbers, messages, (down, across), strength, scale,
        labels,
    )  # fmt: skip
