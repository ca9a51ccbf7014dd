"""A picture of a slide with its classes drawn over it, to check a batch in a minute."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from wsiseg.annotations import Annotations, Palette
from wsiseg.atomic import write_picture
from wsiseg.errors import StoreError
from wsiseg.geometry import Box
from wsiseg.report.legend import draw_legend
from wsiseg.report.measure import measure_classes
from wsiseg.report.rows import describe_tissue
from wsiseg.shrink import FACTORS, shrink_mean
from wsiseg.store import SlideStore
from wsiseg.tissue import mask_window

__all__ = [
    "blend_labels",
    "choose_factor",
    "sample_level",
    "shrink_image",
    "shrink_labels",
    "write_overlay",
]

_LONGEST = 2000  # pixels, roughly: fits a screen, a few hundred kB as JPEG
_TINT = 0.4
_DAMAGE = (200, 0, 0)
_STRIP = 64  # rows of the picture read at a time


def write_overlay(
    store: SlideStore,
    path: str | Path,
    annotations: Annotations,
    damaged: Sequence[Box] = (),
) -> None:
    """Write a JPEG of the slide with class colours, region borders, legend and scale bar.

    The longer side is 1,400 to 2,800 px, or the raster's if that is smaller. Damaged tiles of the
    slide's file (`damaged`, in level-0 pixels) are crossed out.
    """
    longest = max(store.grid.height, store.grid.width)
    factor = 2 ** max(0, round(math.log2(longest / _LONGEST)))
    labels = shrink_labels(store, factor)
    picture = blend_labels(shrink_image(store, factor), labels, store.palette)
    picture = _cross_out(picture, store, factor, damaged)
    tissue = _tissue_mm2(store)
    rows: list[dict[str, Any]] = measure_classes(annotations, tissue)
    area = describe_tissue(tissue, sum(row["area_mm2"] for row in rows))
    told = f"tissue {area}" if area else "no tissue"
    page = draw_legend(picture, store.palette, rows, annotations.slide, told, store.mpp * factor)
    write_picture(Image.fromarray(page), path, "JPEG", quality=90, subsampling=0)


def _cross_out(
    picture: NDArray[np.uint8], store: SlideStore, factor: int, boxes: Sequence[Box]
) -> NDArray[np.uint8]:
    """Frame and cross out each of the level-0 `boxes` in `picture`."""
    if not boxes:
        return picture
    across, down = (mpp / (store.mpp * factor) for mpp in store.slide["mpp"])
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for box in boxes:
        left, right = box.x * across, max(box.right * across - 1, box.x * across)
        top, bottom = box.y * down, max(box.bottom * down - 1, box.y * down)
        draw.rectangle((left, top, right, bottom), outline=_DAMAGE)
        draw.line((left, top, right, bottom), fill=_DAMAGE)
        draw.line((left, bottom, right, top), fill=_DAMAGE)
    return np.asarray(image)


def choose_factor(store: SlideStore, longest: int) -> int:
    """Return the smallest power of two that shrinks the raster to at most `longest` pixels."""
    factor = 1
    while max(store.grid.height, store.grid.width) > longest * factor:
        factor *= 2
    return factor


def shrink_image(store: SlideStore, factor: int) -> NDArray[np.uint8]:
    """Return the whole image ``(H, W, 3)`` uint8, each pixel the mean of ``factor x factor``.

    `factor` is a power of two, so that blocks can be read one by one from the pyramid; blocks
    without tissue are white, and not read.
    """
    grid = store.grid
    level, read = [(i, f) for i, f in enumerate(store.image_factors) if f <= factor][-1]
    picture = np.full((_ceil(grid.height, factor), _ceil(grid.width, factor), 3), 255, np.uint8)
    # One block at a time, rounded up to whole pixels of the result.
    for box in _boxes_with_tissue(store, _ceil(grid.block, factor) * factor):
        window = Box(box.x // read, box.y // read, _ceil(box.width, read), _ceil(box.height, read))
        pixels, remaining = store.read_image(window, level), factor // read
        while remaining > 1:
            step = min(remaining, FACTORS[-1])
            pixels, remaining = shrink_mean(pixels, step), remaining // step
        y, x = box.y // factor, box.x // factor
        picture[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
    return picture


def shrink_labels(store: SlideStore, factor: int) -> NDArray[np.uint8]:
    """Read labels ``(H, W)`` uint8 at the centres of ``factor x factor`` pixels."""
    return sample_level(store, store.read_labels, factor)


def sample_level(
    store: SlideStore, read: Callable[[Box, int], NDArray[np.uint8]], factor: int
) -> NDArray[np.uint8]:
    """Read ``(..., H, W)`` uint8 at the centres of ``factor x factor`` pixels of a label pyramid.

    `read` is `store.read_labels`, `read_confidence` or `read_probabilities`.
    """
    level = max(i for i, shrunk in enumerate(store.pyramid_factors) if shrunk <= factor)
    shrunk = store.pyramid_factors[level]
    grid = store.grid
    shape = _ceil(grid.height, shrunk), _ceil(grid.width, shrunk)
    rows = _centres(_ceil(grid.height, factor), factor / shrunk, shape[0])
    cols = _centres(_ceil(grid.width, factor), factor / shrunk, shape[1])
    strips = []
    # In strips: without a pyramid (blocks not a power of two), the raster may not fit in memory.
    for part in np.split(rows, range(_STRIP, len(rows), _STRIP)):
        top = int(part[0])
        values = read(Box(0, top, shape[1], int(part[-1]) + 1 - top), level)
        strips.append(values[..., (part - top)[:, None], cols])
    return np.concatenate(strips, axis=-2)


def blend_labels(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], palette: Palette
) -> NDArray[np.uint8]:
    """Blend class colours over `image` ``(H, W, 3)`` uint8, and draw region borders dark."""
    colors = np.full((256, 3), 255.0, np.float32)
    colors[: len(palette)] = palette.colors
    opacity = np.zeros(256, np.float32)
    opacity[: len(palette)] = _TINT
    alpha = opacity[labels]
    edge = _borders(labels) & (alpha > 0)
    alpha[edge] = 1.0
    tint = colors[labels]
    tint[edge] *= 0.6
    blended = image * (1 - alpha[..., None]) + tint * alpha[..., None]
    return np.asarray(np.round(blended)).astype(np.uint8)


def _borders(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the mask of pixels with another label above, below, left or right."""
    edge = np.zeros(labels.shape, bool)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge


def _boxes_with_tissue(store: SlideStore, side: int) -> Iterator[Box]:
    """Yield the squares of `side` pixels, cut at the raster's edge, that may touch tissue tiles."""
    whole = Box(0, 0, store.grid.width, store.grid.height)
    squares = (
        Box(x, y, side, side).intersect(whole)
        for y in range(0, whole.height, side)
        for x in range(0, whole.width, side)
    )
    try:
        mask, mpp, _ = store.read_tissue()
    except StoreError:
        return squares
    margin, ratio = store.grid.tile, mpp / store.mpp
    whole_mask = Box(0, 0, mask.shape[1], mask.shape[0])
    windows = ((box, mask_window(box.grow(margin), ratio).intersect(whole_mask)) for box in squares)
    return (box for box, window in windows if mask[window.slices()].any())


def _tissue_mm2(store: SlideStore) -> float:
    try:
        return store.tissue_mm2
    except StoreError:
        return 0.0


def _centres(count: int, ratio: float, limit: int) -> NDArray[np.intp]:
    return np.asarray(np.minimum((np.arange(count) + 0.5) * ratio, limit - 1), np.intp)


def _ceil(length: int, factor: int) -> int:
    return -(-length // factor)
