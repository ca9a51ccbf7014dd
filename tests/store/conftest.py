from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.store.slides import GRID, SLIDE, noise
from wsiseg.store import SlideStore


@pytest.fixture
def store(tmp_path: Path) -> SlideStore:
    return SlideStore.create(tmp_path / "a.zarr", GRID, 0.5, SLIDE)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[SlideStore, NDArray[np.uint8]]:
    """A store with blocks 1, 6 and 11 written, and what it should hold."""
    path = tmp_path_factory.mktemp("filled") / "a.zarr"
    store = SlideStore.create(path, GRID, 0.5, SLIDE)
    image = np.full((300, 420, 3), 255, np.uint8)
    for block in (1, 6, 11):
        box = GRID.block_box(block)
        image[box.slices()] = noise((box.height, box.width, 3), block)
        store.write_image(block, image[box.slices()])
    return store, image
