"""The dense CRF on a CPU: mean field over the permutohedral lattice, in numba.

One image is one thread; a batch shares the threads out. With `scale` 2 one pixel in four sends and
hears messages, on the lattice of them all; where a border runs, every pixel then reads the last
messages at its own place and colour. With a `band`, what is far from any border is left as it is.
"""

from __future__ import annotations

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
    fill_decided,
    find_region,
    pick_classes,
    sum_decided,
    whole_region,
)
from wsiseg.model.crf.sweep import lanes_for, sweep
from wsiseg.model.crf.upsample import upsample

__all__ = ["refine_batch"]

# Lattice and pixel weights of one image; with Q and the copies that halving needs, 400 MB.
_BYTES = 256 * 2**20
_MARGIN = 64


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
    scale = config.scale if config.iterations else 1
    thin = np.ascontiguousarray(prior[:, ::scale, ::scale])
    classes, height, width = thin.shape
    labels = pick_classes(thin)
    if config.band and config.iterations:
        region = find_region(labels, config.band, scale)
    else:
        region = whole_region(height, width)
    if region.pixels < height * width or scale > 1:
        fill_decided(pick_classes(prior), out)
    if not region.pixels:
        return
    sxy = config.appearance_sxy / scale
    place = (corner[0] / scale, corner[1] / scale)
    numbers = number_points(height, width, sxy, config.appearance_srgb, place)
    pixels = np.ascontiguousarray(image[:, ::scale, ::scale])
    most = _most_points(region.pixels, classes)
    lattice = build_lattice(pixels, region.spans, numbers, most)
    if lattice is None:
        _refine_halves(prior, image, config, out, corner)
    elif scale == 1:
        _iterate(thin, labels, region, lattice, config, out)
    else:
        q = np.empty_like(thin)
        fill_decided(labels, q)
        messages = _iterate(thin, labels, region, lattice, config, q)
        _upsample(prior, image, q, lattice, numbers, messages, config, out)


def _most_points(pixels: int, classes: int) -> int:
    """Lattice points that the memory bound leaves room for; always enough for a small tile."""
    a_pixel = CORNERS * (4 + 4)
    a_point = CORNERS * 2 * 4 + 2 * lanes_for(classes) * 4
    return max((_BYTES - a_pixel * pixels) // a_point, 2**19)


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
    labels: NDArray[np.uint8],
    region: Region,
    lattice: Lattice,
    config: CrfConfig,
    out: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Write Q of the region's pixels; what the last messages were read of: lattice and grid."""
    classes, height, width = prior.shape
    lanes = lanes_for(classes)
    down = coarse_axis(height, config.smooth_sxy / config.scale)
    across = coarse_axis(width, config.smooth_sxy / config.scale)
    value, other = (_zeros((lattice.points + 1) * lanes) for _ in range(2))
    grid, room = (_zeros(down.cells * across.cells * lanes) for _ in range(2))
    decided = np.zeros_like(grid)
    sum_decided(labels, region.inside, region.cell, down, across, lanes, decided)
    strength = (np.float32(config.appearance_weight), np.float32(config.smooth_weight))
    for iteration in range(config.iterations + 1):
        source = (value, grid, iteration > 0)
        target = (other, room, iteration < config.iterations)
        sweep(prior, lattice, down, across, strength, lanes, source, target, decided, out)
        if iteration < config.iterations:
            value, other, grid, room = other, value, room, grid
            blur(value, other, lattice.near, lattice.rows, lanes)
            filter_grid(grid, room, down.cells, across.cells, lanes, down.taps, across.taps)
    return value, grid


def _zeros(size: int) -> NDArray[np.float32]:
    """Zeros that begin where a line of the cache does, so that no vector lies across two."""
    room = np.zeros(size + 16, np.float32)
    first = -room.ctypes.data % 64 // 4
    return room[first : first + size]


def _upsample(
    prior: NDArray[np.float32],
    image: NDArray[np.uint8],
    q: NDArray[np.float32],
    lattice: Lattice,
    numbers: Numbers,
    messages: tuple[NDArray[np.float32], NDArray[np.float32]],
    config: CrfConfig,
    out: NDArray[np.float32],
) -> None:
    """Write Q of every pixel of the region from that of the pixels that were worked on."""
    scale = config.scale
    _, height, width = q.shape
    down = coarse_axis(height, config.smooth_sxy / scale, finer=scale)
    across = coarse_axis(width, config.smooth_sxy / scale, finer=scale)
    strength = (np.float32(config.appearance_weight), np.float32(config.smooth_weight))
    labels = pick_classes(q)
    axes = (down, across)
    upsample(prior, image, q, labels, lattice, numbers, messages, axes, strength, scale, out)
