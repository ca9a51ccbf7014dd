"""Variants of held-out tiles: mosaics with known borders, other dyes, other scales."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from wsiseg.model.encoders.descriptors import STAINS

HED = np.array(STAINS)
DYES = {
    "as it is": HED[:2],
    "strong": HED[:2] * 1.5,
    "pale": HED[:2] * 0.55,
    "bluer": np.array([[0.75, 0.62, 0.22], [0.20, 0.95, 0.20]]),
    "redder": np.array([[0.50, 0.80, 0.33], [0.05, 0.90, 0.35]]),
    "purple": np.array([[0.60, 0.76, 0.24], [0.35, 0.90, 0.25]]),
    "H strong, E pale": HED[:2] * [[1.4], [0.6]],
    "E strong, H pale": HED[:2] * [[0.6], [1.4]],
    "brown and blue (IHC)": np.array([[0.268, 0.570, 0.776], [0.650, 0.704, 0.286]]),
}


def other_dyes(pixels: np.ndarray, dyes: np.ndarray) -> np.ndarray:
    """Replace haematoxylin and eosin by `dyes` ``(2, 3)`` in ``(N, H, W, 3)`` uint8."""
    unmix = np.linalg.inv(HED / np.linalg.norm(HED, axis=1, keepdims=True))
    new = np.vstack([dyes / np.linalg.norm(HED[:2], axis=1, keepdims=True), HED[2]])
    matrix = (unmix @ new).astype(np.float32)
    density = -np.log(np.maximum(pixels, 1) / np.float32(255))
    return np.rint(np.exp(-np.maximum(density @ matrix, 0)) * 255).astype(np.uint8)


def other_scale(images: torch.Tensor, mpp: float) -> torch.Tensor:
    """Rescale ``(B, 3, 224, 224)`` from 0.5 µm/px to `mpp`, in whole cells of 32 px."""
    side = max(32, round(images.shape[2] * 0.5 / mpp / 32) * 32)
    return F.interpolate(images, (side, side), mode="bilinear", antialias=True)


def mosaics(
    pixels: np.ndarray, classes: np.ndarray, slides: np.ndarray, count: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Make pictures ``(H, W, 3)`` of 2 x 2 or 3 x 3 pure tiles of different classes, with labels.

    Classes are drawn uniformly, so rare ones count; half of the pictures are from one slide as far
    as it has the classes.
    """
    random, side = np.random.default_rng(seed), pixels.shape[1]
    for number in range(count):
        grid = 2 + number % 2
        wanted = random.permutation(np.unique(classes))
        wanted = np.resize(wanted, grid * grid)
        home = random.choice(slides)
        chosen = []
        for name in wanted:
            pool = np.flatnonzero(classes == name)
            here = pool[slides[pool] == home]
            chosen.append(random.choice(here if number % 4 < 2 and len(here) else pool))
        order = random.permutation(len(chosen))
        tiles = pixels[np.array(chosen)[order]].reshape(grid, grid, side, side, 3)
        image = tiles.transpose(0, 2, 1, 3, 4).reshape(grid * side, grid * side, 3)
        truth = np.kron(wanted[order].reshape(grid, grid), np.ones((side, side), int))
        yield image, truth
