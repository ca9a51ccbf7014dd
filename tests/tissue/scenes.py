"""Painted slides whose tissue is known, at 2 µm/px."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from wsiseg.slide import ArraySlide

MPP = 2.0
GLASS = (243, 240, 242)
# Optical densities (log10) of 1 unit of stain.
EOSIN = (0.09, 0.40, 0.17)
HAEMATOXYLIN = (0.33, 0.36, 0.15)


class Scene:
    """A slide of `height` x `width` px of glass, to be painted on."""

    def __init__(
        self, height: int = 600, width: int = 800, glass: tuple[int, int, int] = GLASS
    ) -> None:
        self.rng = np.random.default_rng(7)
        self.image = np.empty((height, width, 3), np.float64)
        self.image[:] = glass
        self.truth = np.zeros((height, width), bool)
        self.rows, self.cols = np.mgrid[:height, :width]

    def ellipse(self, x: float, y: float, across: float, down: float) -> NDArray[np.bool_]:
        return ((self.cols - x) / across) ** 2 + ((self.rows - y) / down) ** 2 < 1

    def stroke(self, x0: float, y0: float, x1: float, y1: float, wide: float) -> NDArray[np.bool_]:
        along = np.array([x1 - x0, y1 - y0]) / np.hypot(x1 - x0, y1 - y0)
        right, down = self.cols - x0, self.rows - y0
        at = np.clip(right * along[0] + down * along[1], 0, np.hypot(x1 - x0, y1 - y0))
        return np.hypot(right - at * along[0], down - at * along[1]) < wide / 2

    def stain(
        self, where: NDArray[np.bool_], eosin: float, haematoxylin: float, texture: float = 0.3
    ) -> None:
        """Tissue with so much of each dye, uneven by the share `texture`."""
        field = ndimage.gaussian_filter(self.rng.standard_normal(where.shape, np.float32), 3)
        uneven = np.clip(1 + texture * field / field.std(), 0.3, None)[where, None]
        density = eosin * np.array(EOSIN) + haematoxylin * np.array(HAEMATOXYLIN)
        self.image[where] *= 10 ** (-density * uneven)
        self.truth |= where

    def ink(
        self, where: NDArray[np.bool_], color: tuple[int, int, int], opacity: float = 0.92
    ) -> None:
        """A pen stroke whose edge thins out over about 20 µm."""
        cover = ndimage.gaussian_filter(where.astype(np.float64), 4)[..., None] * opacity
        self.image = self.image * (1 - cover) + np.array(color) * cover

    def slide(self, noise: float = 2.0, quality: int | None = 80) -> ArraySlide:
        """What a scanner makes of it: sensor noise, and JPEG at `quality`."""
        noisy = self.image + noise * self.rng.standard_normal(self.image.shape)
        image = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
        if quality is not None:
            file = io.BytesIO()
            Image.fromarray(image).save(file, "JPEG", quality=quality)
            image = np.asarray(Image.open(file))
        return ArraySlide(image, MPP)

    def coarse_truth(self, factor: int) -> NDArray[np.bool_]:
        """The truth at `factor` times `MPP`: where most of a pixel is tissue."""
        height, width = self.truth.shape
        padded = np.zeros((-(-height // factor) * factor, -(-width // factor) * factor))
        padded[:height, :width] = self.truth
        shape = (padded.shape[0] // factor, factor, padded.shape[1] // factor, factor)
        return np.asarray(padded.reshape(shape).mean((1, 3)) >= 0.5)
