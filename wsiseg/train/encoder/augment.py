"""Augmentations that leave the tissue what it is: dyes, light, focus, compression."""

from __future__ import annotations

from io import BytesIO
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from wsiseg.model.encoders.descriptors import STAINS

__all__ = ["Light", "compress", "defocus", "draw_dyes", "draw_light", "random_dyes", "recolour"]

_HED = np.array(STAINS)
_HED /= np.linalg.norm(_HED, axis=1, keepdims=True)
_UNMIX = np.linalg.inv(_HED)
_DENSITY = -np.log(np.maximum(np.arange(256), 1) / 255).astype(np.float32)


def draw_dyes(rng: Generator) -> NDArray[np.float32]:
    """Draw ``(3, 3)`` float32, by which optical densities (one row per pixel) are multiplied.

    Mostly another laboratory's haematoxylin and eosin (strength and hue of each vary), at times a
    change of all channels, at times dyes of any colour, and at times grey.
    """
    kind = rng.random()
    if kind < 0.03:
        grey = rng.dirichlet((4, 4, 4))
        return np.outer(grey, np.ones(3)).astype(np.float32)
    if kind < 0.15:
        dyes = random_dyes(rng)
    else:
        dyes = np.maximum(_HED + rng.normal(0, 0.06, (3, 3)), 0.02)
        dyes /= np.linalg.norm(dyes, axis=1, keepdims=True)
    matrix = _UNMIX @ (np.exp(rng.normal(0, 0.25, (3, 1))) * dyes)
    if rng.random() < 0.2:
        matrix = matrix @ (np.eye(3) + rng.normal(0, 0.08, (3, 3)))
    return matrix.astype(np.float32)


def random_dyes(rng: Generator) -> NDArray[np.float64]:
    """Draw ``(3, 3)``: two different dyes of any colour, and an unchanged third row; unit rows."""
    while True:
        dyes = rng.dirichlet((0.9, 0.9, 0.9), 2) + 0.05
        dyes /= np.linalg.norm(dyes, axis=1, keepdims=True)
        if dyes[0] @ dyes[1] < 0.92:
            return np.vstack([dyes, _HED[2]])


class Light(NamedTuple):
    """How pictures were taken, one row per picture."""

    gamma: NDArray[np.float32]
    """``(B, 1)``: exponent of all channels."""
    gain: NDArray[np.float32]
    """``(B, 3)``: factor of each channel: brightness and a cast."""
    offset: NDArray[np.float32]
    """``(B, 1)``: added to all channels."""
    grain: NDArray[np.float32]
    """``(B, 1)``: standard deviation of the noise; mostly 0."""


def draw_light(count: int, rng: Generator) -> Light:
    """Draw the light of `count` pictures."""
    noisy = rng.random((count, 1)) < 0.3
    return Light(
        np.exp(rng.normal(0, 0.15, (count, 1))).astype(np.float32),
        np.exp(rng.normal(0, 0.06, (count, 1)) + rng.normal(0, 0.03, (count, 3))).astype(
            np.float32
        ),
        rng.normal(0, 0.03, (count, 1)).astype(np.float32),
        (noisy * rng.uniform(0, 0.04, (count, 1))).astype(np.float32),
    )


def recolour(
    images: NDArray[np.uint8], dyes: NDArray[np.float32], light: Light, seed: int
) -> Tensor:
    """Change the dyes and the light of images: ``(B, 3, H, W)`` float32 RGB in [0, 1].

    Parameters
    ----------
    images
        ``(B, H, W, 3)`` uint8 RGB.
    dyes
        ``(B, 3, 3)``, by which optical densities are multiplied from the right.
    light
        Light of each image.
    seed
        Seed of the noise.
    """
    batch, height, width, _ = images.shape
    planes = np.ascontiguousarray(images.reshape(batch, -1, 3).transpose(0, 2, 1))
    density = torch.from_numpy(np.take(_DENSITY, planes))
    matrix = torch.from_numpy(dyes * light.gamma[:, :, None]).mT
    gain = torch.from_numpy(np.log(light.gain))[:, :, None]
    changed = torch.baddbmm(gain, matrix, density, alpha=-1).exp_()
    changed += torch.from_numpy(light.offset)[:, :, None]
    generator = torch.Generator().manual_seed(seed)
    for image, sigma in zip(changed, light.grain[:, 0], strict=True):
        if sigma > 0:
            image += float(sigma) * torch.randn(image.shape, generator=generator)
    return changed.clamp_(0, 1).view(batch, 3, height, width)


def compress(image: Image.Image, quality: int) -> Image.Image:
    """Compress an image as JPEG, and read it back."""
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    buffer.seek(0)
    return Image.open(buffer).convert("RGB")


def defocus(image: NDArray[np.uint8], rng: Generator) -> NDArray[np.uint8]:
    """Blur a quarter of the pictures ``(H, W, 3)``, by up to 2 µm at 1 µm/px."""
    if rng.random() >= 0.25:
        return image
    blur = ImageFilter.GaussianBlur(rng.uniform(0.4, 1.8))
    return np.asarray(Image.fromarray(image).filter(blur))
