"""Augmented views of windows: scale, rotation, mosaics, stain, light, focus, JPEG artefacts."""

from __future__ import annotations

import math
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from wsiseg.config import DistillConfig
from wsiseg.distill.labels import Read
from wsiseg.model.device import to_images
from wsiseg.train.encoder.augment import compress, defocus, draw_dyes, draw_light, recolour

__all__ = ["Views", "draw_views"]

_RECODED = 0.15  # share of windows that are compressed as JPEG again
_QUALITY = (25, 85)


class Views(NamedTuple):
    """An augmented batch."""

    images: Tensor
    """``(B, 3, side, side)`` float32 RGB in [0, 1]."""
    labels: NDArray[np.uint8]
    """``(B, side, side)`` as `Read.labels`."""
    confidence: NDArray[np.uint8]
    """``(B, side, side)``."""


def draw_views(read: Read, side: int, config: DistillConfig, rng: Generator) -> Views:
    """Draw one view of each window, `side` px a side, which must suit the network."""
    shapes = [_change_shape(*window, side, config, rng) for window in zip(*read, strict=True)]
    planes = [np.stack(part) for part in zip(*shapes, strict=True)]
    if config.mosaics:
        planes = _mix(planes, config.mosaics, rng)
    images, labels, confidence = planes
    if not config.stains:
        return Views(to_images(images), labels, confidence)
    dyes = np.stack([draw_dyes(rng) for _ in images])
    light, seed = draw_light(len(images), rng), int(rng.integers(2**31))
    return Views(recolour(images, dyes, light, seed), labels, confidence)


def _change_shape(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], confidence: NDArray[np.uint8], side: int,
    config: DistillConfig, rng: Generator,
) -> tuple[NDArray[np.uint8], ...]:  # fmt: skip
    low, high = config.scales
    span = side / math.exp(rng.uniform(math.log(low), math.log(high)))
    # Windows are continued by their mirror image.
    margin = max(0, math.ceil((span - len(image)) / 2))
    planes = [_mirror(plane, margin) for plane in (image, labels, confidence)]
    x, y = rng.uniform(0, max(0.0, len(planes[0]) - span), 2).tolist()
    box = (x, y, min(x + span, len(planes[0])), min(y + span, len(planes[0])))
    # Labels cannot be interpolated.
    filters = (Image.Resampling.BILINEAR, Image.Resampling.NEAREST, Image.Resampling.NEAREST)
    pictures = [
        Image.fromarray(plane).resize((side, side), filter_, box=box)
        for plane, filter_ in zip(planes, filters, strict=True)
    ]
    if config.stains and rng.random() < _RECODED:
        pictures[0] = compress(pictures[0], int(rng.integers(*_QUALITY)))
    arrays = [np.asarray(picture) for picture in pictures]
    if config.stains:
        arrays[0] = defocus(arrays[0], rng)
    flip, quarter = rng.integers(2), int(rng.integers(4))
    turned = [np.rot90(plane[:, ::-1] if flip else plane, quarter) for plane in arrays]
    return tuple(np.ascontiguousarray(plane) for plane in turned)


def _mix(planes: list[NDArray[np.uint8]], share: float, rng: Generator) -> list[NDArray[np.uint8]]:
    """Make a share of the views mosaics: each quarter, of random size, is one of a random view."""
    count, side = planes[0].shape[:2]
    mixed = [plane.copy() for plane in planes]
    for view in np.flatnonzero(rng.random(count) < share):
        y, x = rng.integers(side // 4, side - side // 4 + 1, 2)
        halves = ((slice(0, cut), slice(cut, side)) for cut in (y, x))
        for rows, columns in product(*halves):
            source = rng.integers(count)
            for plane, out in zip(planes, mixed, strict=True):
                out[view, rows, columns] = plane[source, rows, columns]
    return mixed


def _mirror(plane: NDArray[np.uint8], margin: int) -> NDArray[np.uint8]:
    if not margin:
        return plane
    margins = [(margin, margin)] * 2 + [(0, 0)] * (plane.ndim - 2)
    return np.pad(plane, margins, mode="symmetric")
