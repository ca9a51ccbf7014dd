from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsiseg.config import TissueConfig
from wsiseg.errors import StoreError
from wsiseg.geometry import Box
from wsiseg.grid import TileGrid
from wsiseg.store import SlideStore
from wsiseg.tissue import kept_tiles, sample_mask, sample_tissue, tile_fractions

Mask = NDArray[np.bool_]


@st.composite
def masked_grids(draw: st.DrawFn) -> tuple[Mask, float, TileGrid, float]:
    """A raster with its mask, at a ratio of a few eighths of a raster pixel."""
    tile = draw(st.integers(1, 12))
    stride = draw(st.integers(1, tile))
    height, width = draw(st.integers(1, 50)), draw(st.integers(1, 50))
    ratio = draw(st.integers(2, 60)) / 8
    grid = TileGrid(height, width, tile, stride, tile * stride)
    shape = (int(np.ceil(height / ratio)), int(np.ceil(width / ratio)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return rng.random(shape) < draw(st.sampled_from([0.02, 0.5, 1.0])), ratio, grid, 1.0


def overlap(low: float, high: float, index: int, ratio: float) -> Fraction:
    left, right = Fraction(index) * Fraction(ratio), Fraction(index + 1) * Fraction(ratio)
    return max(Fraction(0), min(Fraction(high), right) - max(Fraction(low), left))


@settings(max_examples=80, deadline=None)
@given(masked_grids())
def test_fractions_are_exact_areas(case: tuple[Mask, float, TileGrid, float]) -> None:
    mask, ratio, grid, mpp = case
    got = tile_fractions(mask, ratio, grid, mpp)
    assert got.shape == (grid.rows, grid.cols)
    assert got.dtype == np.float32
    for row, col in {(0, 0), (grid.rows - 1, grid.cols - 1), (grid.rows // 2, grid.cols // 3)}:
        box = grid.tile_box(row, col).intersect(grid.box)
        area = sum(
            overlap(box.y, box.bottom, i, ratio) * overlap(box.x, box.right, j, ratio)
            for i, j in np.argwhere(mask).tolist()
        )
        assert got[row, col] == pytest.approx(float(area / grid.tile**2), abs=1e-6)
        assert (got[row, col] > 0) == (area > 0)


@settings(max_examples=80, deadline=None)
@example(
    (np.array([[False, False, False, True]]), 6.125, TileGrid(1, 19, 1, 1, 1), 1.0),
    Box(0, 0, 25, 1),
)  # on 4.0
@given(
    masked_grids(),
    st.builds(
        Box, st.integers(-9, 60), st.integers(-9, 60), st.integers(0, 40), st.integers(0, 40)
    ),
)
def test_samples_are_the_mask_at_pixel_centres(
    case: tuple[Mask, float, TileGrid, float], box: Box
) -> None:
    mask, ratio, _, mpp = case
    got = sample_mask(mask, ratio, box, mpp)
    assert got.shape == (box.height, box.width)
    for i in range(box.height):
        for j in range(box.width):
            row = (Fraction(2 * (box.y + i) + 1, 2) / Fraction(ratio)).__floor__()
            col = (Fraction(2 * (box.x + j) + 1, 2) / Fraction(ratio)).__floor__()
            inside = 0 <= row < mask.shape[0] and 0 <= col < mask.shape[1]
            assert got[i, j] == (inside and mask[row, col])


def test_samples_of_a_store_are_those_of_its_whole_mask(tmp_path: Path) -> None:
    grid = TileGrid(300, 420, 32, 32, 128)
    store = SlideStore.create(tmp_path / "a.zarr", grid, 0.5, {"name": "a", "identity": "0"})
    everywhere = (grid.box, Box(-40, -3, 90, 31), Box(390, 280, 60, 60), Box(500, 0, 9, 9),
                  Box(7, 9, 0, 4), Box(100, 3, 1, 1))  # fmt: skip
    with pytest.raises(StoreError, match="holds no tissue mask; run `wsiseg tile`"):
        sample_tissue(store, grid.box)
    for mpp in (4.0, 0.7, 0.3):
        shape = tuple(round(n * 0.5 / mpp) for n in (300, 420))
        mask = np.random.default_rng(0).random(shape) > 0.5
        store.write_tissue(mask, mpp, "ab")
        for box in everywhere:
            wanted = sample_mask(mask, mpp, box, 0.5)
            np.testing.assert_array_equal(sample_tissue(store, box), wanted)


def test_kept_tiles_reach_the_fraction_and_hold_tissue(tmp_path: Path) -> None:
    grid = TileGrid(64, 96, 32, 32, 64)
    store = SlideStore.create(tmp_path / "a.zarr", grid, 0.5, {"name": "a", "identity": "0"})
    with pytest.raises(StoreError, match="holds no tissue mask; run `wsiseg tile`"):
        kept_tiles(store, TissueConfig())
    mask = np.zeros((16, 24), bool)  # 4 raster pixels each: 8 x 8 a tile
    mask[0, 0] = True  # 1/64 of tile (0, 0)
    mask[0, 8:16] = True  # 1/8 of tile (0, 1)
    mask[8:, 16:] = True  # all of tile (1, 2)
    store.write_tissue(mask, 2.0, "ab")

    def kept(fraction: float) -> list[list[int]]:
        return np.argwhere(kept_tiles(store, TissueConfig(min_fraction=fraction))).tolist()

    assert kept(0) == [[0, 0], [0, 1], [1, 2]]
    assert kept(1 / 64) == [[0, 0], [0, 1], [1, 2]]
    assert kept(0.02) == [[0, 1], [1, 2]]
    assert kept(0.125) == [[0, 1], [1, 2]]
    assert kept(1) == [[1, 2]]
