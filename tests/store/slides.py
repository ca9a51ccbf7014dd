from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsiseg.annotations import PALETTES
from wsiseg.geometry import Box
from wsiseg.grid import TileGrid
from wsiseg.store import SlideStore

GRID = TileGrid(300, 420, 32, 32, 128)  # 3 x 4 blocks, the last ones cut
OVERLAPPING = TileGrid(300, 420, 32, 16, 128)
SLIDE: dict[str, Any] = {
    "name": "a.svs", "path": "/data/a.svs", "identity": "a" * 64, "size": [420, 300],
    "mpp": [0.5, 0.5], "mpp_source": "openslide.mpp", "bounds": [0, 0, 420, 300],
}  # fmt: skip
DIGEST, OTHER = "ab" * 32, "cd" * 32
BCSS = PALETTES["bcss"]


def noise(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


def window(array: NDArray[Any], box: Box, outside: int) -> NDArray[Any]:
    """Any box of ``array``, with `outside` around it."""
    padded = np.pad(array, [(500, 500), (500, 500)] + [(0, 0)] * (array.ndim - 2),
                    constant_values=outside)  # fmt: skip
    return padded[box.y + 500 : box.bottom + 500, box.x + 500 : box.right + 500]


def files(store: SlideStore, array: str) -> list[str]:
    root = store.path / array
    return sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file() and path.name != "zarr.json"
    )


boxes = st.builds(
    Box, st.integers(-90, 450), st.integers(-90, 350), st.integers(0, 300), st.integers(0, 300)
)


def fill(store: SlideStore) -> None:
    store.write_image(0, noise((128, 128, 3)))
    store.write_tissue(np.ones((19, 27), bool), 8.0, DIGEST)
    store.create_cams(BCSS, 7, 7)
    store.create_labels(BCSS)
    store.mark_done("tile", 0, DIGEST)
