"""Training pictures: mosaics of tiles, each with its own labels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from wsiseg.train.encoder.augment import (
    compress,
    defocus,
    draw_dyes,
    draw_light,
    recolour,
)

__all__ = ["CELL", "SIDE", "LabelledTiles", "Part", "Pictures", "Sampler"]

SIDE = 224
"""Side of a picture, pixels of about 1 µm: what the network sees of 448 px at 0.5 µm/px."""
CELL = 8
"""Pixels per cell of the learned level; parts start and end at multiples of it."""
_MIN_SHARE = 0.8  # of a tile's side that is shown


class LabelledTiles(NamedTuple):
    """Square tiles in memory."""

    pixels: NDArray[np.uint8]
    """``(N, H, H, 3)`` RGB."""
    labels: NDArray[np.float32]
    """``(N, K)``: 1 where the class is present."""
    slides: NDArray[np.int64]
    """``(N,)``: number of the slide."""

    def take(self, which: NDArray[np.int64]) -> LabelledTiles:
        """Select the tiles `which`."""
        return LabelledTiles(self.pixels[which], self.labels[which], self.slides[which])


class Part(NamedTuple):
    """A rectangle of a picture that shows one tile."""

    picture: int
    rows: slice
    """In cells."""
    columns: slice
    tile: int


class Pictures(NamedTuple):
    """A batch."""

    images: Tensor
    """``(B, 3, SIDE, SIDE)`` float32 RGB in [0, 1]."""
    parts: list[Part]
    labels: Tensor
    """``(P, K)`` float32, of the parts."""


class Sampler:
    """Draws pictures; the same ones from the same seed.

    Rare classes and slides with few tiles are drawn more often: a tile's weight is one over the
    square root of how many tiles show its rarest class, and of how many its slide has.
    """

    def __init__(self, tiles: LabelledTiles, seed: int) -> None:
        self.tiles, self.rng = tiles, np.random.default_rng(seed)
        counts = tiles.labels.sum(0)
        rarity = np.where(tiles.labels > 0, 1 / np.sqrt(np.maximum(counts, 1)), 0).max(1)
        rarity[rarity == 0] = rarity[rarity > 0].min()
        slide = np.bincount(tiles.slides)[tiles.slides]
        weight = rarity / np.sqrt(slide)
        self.chance = weight / weight.sum()
        self.within = {
            number: np.flatnonzero(tiles.slides == number) for number in np.unique(tiles.slides)
        }

    def draw(self, count: int) -> Pictures:
        """Draw `count` pictures."""
        images, parts, dyes = [], [], []
        for picture in range(count):
            image, tiles = self._draw_mosaic(picture)
            images.append(defocus(image, self.rng))
            parts += tiles
            dyes.append(draw_dyes(self.rng))
        light, seed = draw_light(count, self.rng), int(self.rng.integers(2**31))
        batch = recolour(np.stack(images), np.stack(dyes), light, seed)
        shown = [part.tile for part in parts]
        return Pictures(batch, parts, torch.from_numpy(self.tiles.labels[shown]))

    def _draw_mosaic(self, picture: int) -> tuple[NDArray[np.uint8], list[Part]]:
        """Draw two by two tiles, at times three by three, with random borders."""
        image, parts = np.empty((SIDE, SIDE, 3), np.uint8), []
        grid = 3 if self.rng.random() < 0.15 else 2
        tiles = iter(self._draw_tiles(grid * grid))
        for rows in self._split(grid):
            for columns in self._split(grid):
                tile = next(tiles)
                height, width = ((s.stop - s.start) * CELL for s in (rows, columns))
                top, left = rows.start * CELL, columns.start * CELL
                image[top : top + height, left : left + width] = self._cut(tile, height, width)
                parts.append(Part(picture, rows, columns, tile))
        return image, parts

    def _split(self, count: int) -> list[slice]:
        """Split one side of a picture into `count` parts: of 64 to 160 px, or of 56 to 96."""
        cells = SIDE // CELL
        if count == 2:
            cuts = [int(self.rng.integers(8, 21))]
        else:
            cuts = [int(self.rng.integers(7, 11)), int(self.rng.integers(18, 22))]
        return [slice(a, b) for a, b in pairwise([0, *cuts, cells])]

    def _draw_tiles(self, count: int) -> Sequence[int]:
        """Draw tiles, half of the time from one slide, so that dyes do not give borders away."""
        if self.rng.random() < 0.5:
            return list(self.rng.choice(len(self.chance), count, p=self.chance))
        (first,) = self.rng.choice(len(self.chance), 1, p=self.chance)
        same_slide = self.within[self.tiles.slides[first]]
        chance = self.chance[same_slide] / self.chance[same_slide].sum()
        return [first, *self.rng.choice(same_slide, count - 1, p=chance)]

    def _cut(self, tile: int, height: int, width: int) -> NDArray[np.uint8]:
        """Cut most of a tile to `height` x `width`, flipped and turned; at times recompressed."""
        rng, whole = self.rng, self.tiles.pixels.shape[1]
        # A rectangle keeps the proportions, as far as it still holds most of the tile.
        share = rng.uniform(_MIN_SHARE, 1)
        long = max(height, width)
        tall, wide = (whole * share * max(n / long, 0.8) for n in (height, width))
        y, x = rng.uniform(0, whole - tall), rng.uniform(0, whole - wide)
        turned = rng.random() < 0.5
        pixels = self.tiles.pixels[tile]
        image = Image.fromarray(pixels)
        size, box = ((height, width), (y, x, y + tall, x + wide)) if turned else (
            (width, height), (x, y, x + wide, y + tall))  # fmt: skip
        image = image.resize(size, Image.Resampling.BILINEAR, box=box)
        if rng.random() < 0.15:
            image = compress(image, int(rng.integers(25, 85)))
        cut = np.asarray(image)
        if turned:
            cut = cut.transpose(1, 0, 2)
        if rng.random() < 0.5:
            cut = cut[::-1]
        return cut[:, ::-1] if rng.random() < 0.5 else cut
