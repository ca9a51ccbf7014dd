"""Small stores to label: the left half pink, the right half blue."""

import numpy as np

from wsiseg.annotations import Palette
from wsiseg.config import digest_of
from wsiseg.grid import TileGrid
from wsiseg.store import SlideStore

CLASSES = ("Pink", "Blue")
PALETTE = Palette(CLASSES, ((255, 0, 255), (0, 0, 255)))
COLORS = np.array([(230, 150, 190), (120, 90, 170)], np.uint8)
TILE, ROWS, COLS = 64, 4, 5
BOUNDS = (100, 40)
"""Corner of the scanned part in level-0 px; a raster px is two of them."""


def make_store(folder, name="one", tile=TILE, mpp=0.5, stride=None, finished=True, tissue=None):
    """A slide whose left half is pink and whose right half is blue."""
    grid = TileGrid(ROWS * TILE, COLS * TILE, tile, stride or tile, 2 * tile)
    slide = {
        "name": f"{name}.svs", "identity": name, "mpp": [mpp / 2, mpp / 2],
        "bounds": [*BOUNDS, 4 * TILE, 4 * TILE],
    }  # fmt: skip
    store = SlideStore.create(folder / f"{name}.zarr", grid, mpp, slide)
    store.write_tissue(np.ones((ROWS, COLS), bool) if tissue is None else tissue, mpp * TILE, "0")
    image = COLORS[labels_of(grid)]
    for block in range(grid.n_blocks):
        store.write_image(block, image[grid.block_box(block).slices()])
        if finished:
            store.mark_done("tile", block, digest_of(name))
    return store


def labels_of(grid):
    labels = np.zeros((grid.height, grid.width), np.uint8)
    labels[:, grid.width // 2 :] = 1
    return labels
