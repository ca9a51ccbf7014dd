from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsiseg.errors import GeometryError
from wsiseg.geometry import Box
from wsiseg.grid import TileGrid


@st.composite
def grids(draw: st.DrawFn) -> TileGrid:
    tile = draw(st.integers(1, 9))
    stride = draw(st.integers(1, tile))
    block = math.lcm(tile, stride) * draw(st.integers(1, 3))
    return TileGrid(draw(st.integers(1, 60)), draw(st.integers(1, 60)), tile, stride, block)


boxes = st.builds(
    Box, st.integers(-20, 70), st.integers(-20, 70), st.integers(0, 50), st.integers(0, 50)
)


def all_tiles(grid: TileGrid) -> list[tuple[int, int]]:
    return [(row, col) for row in range(grid.rows) for col in range(grid.cols)]


@settings(deadline=None)
@given(grids())
def test_every_pixel_is_in_a_tile_and_no_tile_is_needless(grid: TileGrid) -> None:
    count = np.zeros((grid.height, grid.width), np.int64)
    for tile in all_tiles(grid):
        count[grid.tile_box(*tile).intersect(grid.box).slices()] += 1
    assert (count >= 1).all()
    if grid.stride == grid.tile:
        assert (count == 1).all()
    last = grid.tile_box(grid.rows - 1, grid.cols - 1)
    assert grid.rows == 1 or last.bottom - grid.stride < grid.height
    assert grid.cols == 1 or last.right - grid.stride < grid.width


@settings(deadline=None)
@given(grids())
def test_blocks_partition_the_raster(grid: TileGrid) -> None:
    count = np.zeros((grid.height, grid.width), np.int64)
    for index in range(grid.n_blocks):
        box = grid.block_box(index)
        assert not box.empty
        assert (box.x % grid.block, box.y % grid.block) == (0, 0)
        count[box.slices()] += 1
    assert (count == 1).all()


@settings(deadline=None)
@given(grids())
def test_every_tile_is_owned_once_by_the_block_that_holds_its_corner(grid: TileGrid) -> None:
    owned = [(tile, index) for index in range(grid.n_blocks) for tile in grid.block_tiles(index)]
    assert sorted(tile for tile, _ in owned) == all_tiles(grid)
    for tile, index in owned:
        corner = grid.tile_box(*tile)._replace(width=1, height=1)
        assert not corner.intersect(grid.block_box(index)).empty


@settings(deadline=None)
@given(grids())
def test_blocks_list_their_tiles_by_rows(grid: TileGrid) -> None:
    for index in range(grid.n_blocks):
        tiles = list(grid.block_tiles(index))
        assert tiles == sorted(tiles)
        assert len(tiles) <= grid.tiles_per_block**2


@settings(deadline=None)
@given(grids(), boxes)
def test_touching_equals_asking_every_tile(grid: TileGrid, box: Box) -> None:
    wanted = [tile for tile in all_tiles(grid) if not grid.tile_box(*tile).intersect(box).empty]
    assert list(grid.touching(box)) == wanted


def test_a_raster_smaller_than_a_tile_has_one_tile() -> None:
    grid = TileGrid(3, 5, 224, 112, 224)
    assert (grid.rows, grid.cols, grid.n_blocks) == (1, 1, 1)
    assert grid.tile_box(0, 0) == Box(0, 0, 224, 224)
    assert grid.block_box(0) == grid.box == Box(0, 0, 5, 3)
    assert list(grid.block_tiles(0)) == [(0, 0)]


def test_overlapping_tiles_stop_where_the_raster_is_covered() -> None:
    # 448 px: tiles at 0, 112 and 224 reach the edge; one at 336 would add nothing.
    grid = TileGrid(448, 449, 224, 112, 224)
    assert (grid.rows, grid.cols) == (3, 4)


@pytest.mark.parametrize("name", ["height", "width", "tile", "stride", "block"])
def test_lengths_are_positive(name: str) -> None:
    lengths = {"height": 4, "width": 4, "tile": 2, "stride": 2, "block": 4, name: 0}
    with pytest.raises(GeometryError, match=f"{name} is 0; it must be at least 1"):
        TileGrid(**lengths)


def test_gaps_between_tiles_are_refused() -> None:
    with pytest.raises(
        GeometryError, match=r"stride 225 leaves gaps .* use a stride of at most 224"
    ):
        TileGrid(1000, 1000, 224, 225, 1792)


@pytest.mark.parametrize(
    ("tile", "stride", "block", "works"), [(224, 224, 1000, 1120), (224, 96, 1792, 2016)]
)
def test_blocks_that_do_not_fit_name_one_that_does(
    tile: int, stride: int, block: int, works: int
) -> None:
    with pytest.raises(
        GeometryError, match=rf"block {block} is no multiple .* one that works is {works}"
    ):
        TileGrid(1000, 1000, tile, stride, block)
    assert TileGrid(1000, 1000, tile, stride, works).block == works


@pytest.mark.parametrize("index", [-1, 4])
def test_blocks_that_do_not_exist(index: int) -> None:
    with pytest.raises(GeometryError, match=f"block {index} does not exist; the grid has 4"):
        TileGrid(10, 10, 5, 5, 5).block_box(index)
