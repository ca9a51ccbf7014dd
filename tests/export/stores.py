"""A small finished store, and the regions of it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.trace.rasters import blobs, scores_for
from wsiseg.annotations import BACKGROUND, PALETTES, Annotations, Palette
from wsiseg.compute import SerialExecutor
from wsiseg.config import Config
from wsiseg.grid import TileGrid
from wsiseg.outline import outline_regions
from wsiseg.pyramid import write_pyramid
from wsiseg.store import SlideStore

MPP = 0.4
SLIDE = {"name": "one å.svs", "mpp": [0.2, 0.25], "bounds": [40, 30, 4000, 4000]}


def make_labels(height: int = 700, width: int = 900, seed: int = 0) -> NDArray[np.uint8]:
    """Blobs of four classes with holes, background around."""
    coarse = np.kron(blobs((height // 10 - 20, width // 10 - 20), 4, seed), np.ones((10, 10)))
    labels = np.full((height, width), BACKGROUND, np.uint8)
    labels[90 : 90 + coarse.shape[0], 110 : 110 + coarse.shape[1]] = coarse
    return labels


def make_store(
    path: Path,
    labels: NDArray[np.uint8],
    block: int = 256,
    palette: Palette = PALETTES["bcss"],
) -> SlideStore:
    """Labels, confidence and image with their pyramids, stitching marked as done."""
    store = SlideStore.create(path, TileGrid(*labels.shape, 64, 64, block), MPP, SLIDE)
    store.create_labels(palette)
    scores = scores_for(labels)
    rng = np.random.default_rng(1)
    for index in range(store.grid.n_blocks):
        here = store.grid.block_box(index).slices()
        part, trust = np.ascontiguousarray(labels[here]), np.ascontiguousarray(scores[here])
        store.write_image(index, rng.integers(0, 255, (*part.shape, 3)).astype(np.uint8))
        store.write_labels(index, 0, part, trust)
        for step in ("tile", "stitch"):
            store.mark_done(step, index, "5e" * 32)
    for step in ("tile", "stitch"):
        write_pyramid(path, step)
    return store


def outline(store: SlideStore, **settings: float) -> Annotations:
    config = Config.model_validate({"outline": settings})
    return outline_regions(store.path, config, SerialExecutor())
