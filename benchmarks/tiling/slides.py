"""The synthetic slide, and the choice of tiles that are read."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsiseg.compute import open_executor
from wsiseg.demo.svs import Coding, write_svs
from wsiseg.geometry import Box, Size
from wsiseg.slide import open_slide
from wsiseg.tile import _parts

TILE, SIDE = 224, 8
"""Tile side; tiles along the side of a block."""

Pixels = NDArray[np.uint8]


# -- the synthetic slide -------------------------------------------------------------------------


def write_slide(path: Path, size: Size) -> None:
    """Write blobs of textured violet and pink on noisy glass, about a third of the slide."""
    rng = np.random.default_rng(0)
    texture = paint_texture(rng)
    blobs = ndimage.zoom(ndimage.gaussian_filter(rng.standard_normal((40, 50)), 3), 20, order=1)
    inside = blobs > np.quantile(blobs, 0.66)
    glass = rng.integers(242, 246, texture.shape, dtype=np.uint8)
    strips = (cut_strip(y, size, texture, glass, inside) for y in range(0, size.height, 240))
    with open_executor("threads", 2) as encoders:
        write_svs(path, size, strips, 0.25, encoders, Coding(tile=240, quality=80))


def paint_texture(rng: np.random.Generator, side: int = 1920) -> Pixels:
    """Paint a seamless texture of stroma and nuclei ``(side, side, 3)``."""
    coarse, fine = (
        ndimage.gaussian_filter(rng.standard_normal((side, side)), sigma, mode="wrap") * sigma
        for sigma in (9, 1.2)
    )
    nuclei = 1 / (1 + np.exp(-(coarse * 8 - 3.5)))
    eosin = 0.35 + 0.12 * fine + 0.1 * coarse
    density = np.outer(nuclei.ravel(), (0.75, 0.95, 0.45)) + np.outer(
        eosin.ravel(), (0.12, 0.8, 0.4)
    )
    light = 244 * np.exp(-np.maximum(density, 0.02)).reshape(side, side, 3)
    return np.clip(light + rng.normal(0, 2, light.shape), 0, 255).astype(np.uint8)


def cut_strip(
    top: int, size: Size, texture: Pixels, glass: Pixels, inside: NDArray[np.bool_]
) -> Pixels:
    """Return rows ``top .. top + 240`` of the slide."""
    height, side = min(240, size.height - top), len(texture)
    down, across = inside.shape
    rows = (np.arange(top, top + height) % side, top // side)
    repeats = -(-size.width // side)
    # Every repeat starts at another offset, so that no two tiles have the same bytes.
    tissue, bare = (
        np.concatenate(
            [np.roll(image[rows[0]], 240 * k + 97 * rows[1], 1) for k in range(repeats)], 1
        )
        for image in (texture, glass)
    )
    y = np.arange(top, top + height) * down // size.height
    x = np.arange(size.width) * across // size.width
    return np.where(inside[y][:, x, None], tissue[:, : size.width], bare[:, : size.width])


# -- what is read --------------------------------------------------------------------------------


class Task(NamedTuple):
    """Tiles of one slide at `factor` times its own µm/px."""

    path: Path
    factor: float
    tiles: tuple[Box, ...]
    """In pixels of the raster, block by block and row by row."""
    parts: tuple[Box, ...]
    """The same pixels as `tile_slide` reads them."""

    @property
    def side(self) -> int:
        """The side of a tile in level-0 pixels."""
        return round(TILE * self.factor)


def choose(path: Path, factor: float, blocks: int) -> Task:
    """Choose the tissue tiles of `blocks` blocks, spread over those with the most tissue."""
    with open_slide(path) as slide:
        size = slide.raster_size(slide.mpp.x * factor)
        small = slide.read(
            Box(0, 0, *slide.raster_size(slide.mpp.x * factor * 32)), slide.mpp.x * factor * 32
        )
    share = ndimage.uniform_filter((np.ptp(small, axis=2) > 24).astype(np.float32), 7)
    rows, cols = size.height // TILE, size.width // TILE
    kept = share[3::7, 3::7][:rows, :cols] > 0.2
    scored = []
    for row in range(0, kept.shape[0] - SIDE + 1, SIDE):
        for col in range(0, kept.shape[1] - SIDE + 1, SIDE):
            inside = np.argwhere(kept[row : row + SIDE, col : col + SIDE]).tolist()
            boxes = [Box((col + x) * TILE, (row + y) * TILE, TILE, TILE) for y, x in inside]
            block = Box(col * TILE, row * TILE, SIDE * TILE, SIDE * TILE)
            parts = list(_parts(kept[row : row + SIDE, col : col + SIDE], TILE, block))
            scored.append((len(boxes), row, col, boxes, parts))
    full = sorted(scored, reverse=True)[: max(blocks, len(scored) // 4)]
    picked = full[:: max(1, len(full) // blocks)][:blocks]
    tiles = tuple(box for *_, boxes, _ in picked for box in boxes)
    return Task(path, factor, tiles, tuple(box for *_, parts in picked for box in parts))
