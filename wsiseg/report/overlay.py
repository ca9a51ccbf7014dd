"""One picture of a slide with its classes drawn over it, so that a batch is checked in a minute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsiseg.annotations import Annotations, Palette
from wsiseg.atomic import open_atomic
from wsiseg.errors import StoreError
from wsiseg.geometry import Box
from wsiseg.report.legend import draw_legend
from wsiseg.report.measure import measure_classes
from wsiseg.store import SlideStore
from wsiseg.tissue import sample_mask

__all__ = ["blend_labels", "shrink_image", "shrink_labels", "write_overlay"]

_LONGEST = 2000  # pixels: reads well on a screen, a few hundred kB as JPEG
_TINT = 0.4
_STRIP = 64  # rows of the picture


def write_overlay(store: SlideStore, path: str | Path, annotations: Annotations) -> None:
    """Write a JPEG of the slide with class colours, region borders, legend and scale bar.

    The longest side is about 2,000 px. Image blocks are read one by one, those without tissue not
    at all.
    """
    factor = max(1, round(max(store.grid.height, store.grid.width) / _LONGEST))
    labels = shrink_labels(store, factor)
    picture = blend_labels(shrink_image(store, factor), labels, store.palette)
    tissue = _tissue_mm2(store)
    rows = measure_classes(annotations, tissue)
    page = draw_legend(picture, store.palette, rows, annotations.slide, tissue, store.mpp * factor)
    with open_atomic(path) as file:
        Image.fromarray(page).save(file, "JPEG", quality=90, subsampling=0)


def shrink_image(store: SlideStore, factor: int) -> NDArray[np.uint8]:
    """The whole image ``(H, W, 3)`` uint8, each pixel the mean of ``factor x factor``."""
    grid = store.grid
    rows, cols = _ceil(grid.height, factor), _ceil(grid.width, factor)
    # Summed as darkness, so that what is not stored is white without being read.
    darkness = np.zeros((rows, cols, 3), np.uint32)
    for index in _blocks_with_tissue(store):
        box = grid.block_box(index)
        pixels = 255 - store.read_image(box)
        y, x = box.y // factor, box.x // factor
        row_starts = _group_starts(box.y, box.height, factor)
        col_starts = _group_starts(box.x, box.width, factor)
        # Rows by `sum`, which is three times as fast as `reduceat` over both axes.
        stops = [*row_starts[1:], box.height]
        sums = np.stack(
            [pixels[a:b].sum(0, np.uint32) for a, b in zip(row_starts, stops, strict=True)]
        )
        sums = np.add.reduceat(sums, col_starts, axis=1)
        darkness[y : y + len(row_starts), x : x + len(col_starts)] += sums
    heights = np.minimum(factor, grid.height - np.arange(rows) * factor)
    widths = np.minimum(factor, grid.width - np.arange(cols) * factor)
    area = (heights[:, None] * widths)[..., None]
    return np.asarray(255 - (darkness + area // 2) // area).astype(np.uint8)


def shrink_labels(store: SlideStore, factor: int) -> NDArray[np.uint8]:
    """Labels ``(H, W)`` uint8 at the centres of ``factor x factor`` pixels, from the pyramid."""
    level = max(i for i, known in enumerate(store.pyramid_factors) if known <= factor)
    known = store.pyramid_factors[level]
    grid = store.grid
    shape = _ceil(grid.height, known), _ceil(grid.width, known)
    rows = _centres(_ceil(grid.height, factor), factor / known, shape[0])
    cols = _centres(_ceil(grid.width, factor), factor / known, shape[1])
    strips = []
    # In strips: a block without powers of two has no pyramid, and the whole may not fit.
    for part in np.split(rows, range(_STRIP, len(rows), _STRIP)):
        top = int(part[0])
        labels = store.read_labels(Box(0, top, shape[1], int(part[-1]) + 1 - top), level)
        strips.append(labels[np.ix_(part - top, cols)])
    return np.concatenate(strips)


def blend_labels(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], palette: Palette
) -> NDArray[np.uint8]:
    """Class colours over `image` ``(H, W, 3)`` uint8, with each region's border drawn dark."""
    colors = np.full((256, 3), 255.0, np.float32)
    colors[: len(palette)] = palette.colors
    opacity = np.zeros(256, np.float32)
    opacity[: len(palette)] = _TINT
    alpha = opacity[labels]
    edge = _borders(labels) & (alpha > 0)
    alpha[edge] = 1.0
    over = colors[labels]
    over[edge] *= 0.6
    blended = image * (1 - alpha[..., None]) + over * alpha[..., None]
    return np.asarray(np.round(blended)).astype(np.uint8)


def _borders(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels that have another label above, below, left or right."""
    edge = np.zeros(labels.shape, bool)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge


def _blocks_with_tissue(store: SlideStore) -> list[int]:
    blocks = list(range(store.grid.n_blocks))
    try:
        mask, mpp, _ = store.read_tissue()
    except StoreError:
        return blocks
    # A tile of a neighbouring block may reach in.
    boxes = [store.grid.block_box(index).grow(store.grid.tile) for index in blocks]
    return [i for i in blocks if sample_mask(mask, mpp, boxes[i], store.mpp).any()]


def _tissue_mm2(store: SlideStore) -> float:
    try:
        mask, mpp, _ = store.read_tissue()
    except StoreError:
        return 0.0
    return float(mask.sum()) * mpp * mpp / 1e6


def _group_starts(start: int, length: int, factor: int) -> NDArray[np.intp]:
    """Where, from `start`, each run of pixels that share an output pixel begins."""
    first = -start % factor
    return np.unique(np.concatenate([[0], np.arange(first, length, factor)])).astype(np.intp)


def _centres(count: int, ratio: float, limit: int) -> NDArray[np.intp]:
    return np.asarray(np.minimum((np.arange(count) + 0.5) * ratio, limit - 1), np.intp)


def _ceil(length: int, factor: int) -> int:
    return -(-length // factor)
