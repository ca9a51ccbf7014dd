"""Small stores for the report's tests."""

import numpy as np

from wsiseg.annotations import BACKGROUND, PALETTES, Annotations, Region
from wsiseg.grid import TileGrid
from wsiseg.pyramid import write_pyramid
from wsiseg.store import SlideStore

PALETTE = PALETTES["bcss"]


def make_store(path, image, labels, tissue=True, tile=32, block=64):
    """A store of ``(H, W, 3)`` pixels and ``(H, W)`` labels at 0.5 µm/px."""
    grid = TileGrid(*labels.shape, tile, tile, block)
    store = SlideStore.create(path, grid, 0.5, {"name": "case.svs"})
    store.create_labels(PALETTE)
    for index in range(grid.n_blocks):
        rows, cols = grid.block_box(index).slices()
        if (image[rows, cols] != 255).any():
            store.write_image(index, image[rows, cols])
        part = np.ascontiguousarray(labels[rows, cols])
        store.write_labels(index, 0, part, np.full_like(part, 200))
        for step in ("tile", "stitch"):
            store.mark_done(step, index, "5e" * 32)
    for step in ("tile", "stitch"):
        write_pyramid(path, step)
    if tissue:
        store.write_tissue((labels != BACKGROUND)[::4, ::4], 2.0, "00")
    return store


def annotate(labels):
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]], np.int32)
    regions = tuple(
        Region(label, square, (), int((labels == label).sum()), 0.5 + label / 10)
        for label in range(len(PALETTE))
        if (labels == label).any()
    )
    return Annotations("case.svs", PALETTE, regions, (1.0, 1.0), 0.5)
