from itertools import product

import pytest

from wsiseg.grid import TileGrid
from wsiseg.windows import plan_windows


def plan(grid, tiles=None, margin=64, stride=16, step=32):
    tiles = list(product(range(grid.rows), range(grid.cols))) if tiles is None else tiles
    return list(plan_windows(grid, tiles, margin, stride, step))


def contains(outer, inner):
    return (
        outer.x <= inner.x and outer.y <= inner.y
        and outer.right >= inner.right and outer.bottom >= inner.bottom
    )  # fmt: skip


@pytest.mark.parametrize("stride", [224, 112])
def test_every_tile_is_in_one_window_with_its_margin(stride):
    grid = TileGrid(2000, 3000, 224, stride, 1792)
    windows = plan(grid)
    assert sorted(tile for one in windows for tile in one.tiles) == list(
        product(range(grid.rows), range(grid.cols))
    )
    for one in windows:
        assert one.box.width % 32 == one.box.height % 32 == 0
        assert max(one.box[2:]) <= 896 + 2 * 64
        for tile in one.tiles:
            assert contains(one.box, grid.tile_box(*tile).grow(64))
            row, col = one.cell(grid, tile, 16)
            box = grid.tile_box(*tile)
            assert (one.box.y + 16 * row, one.box.x + 16 * col) == (box.y, box.x)


def test_a_window_is_no_larger_than_its_tiles_need():
    grid = TileGrid(1792, 1792, 224, 224, 1792)
    (one,) = plan(grid, [(1, 2), (2, 2)])
    assert one.box[2:] == (224 + 128, 448 + 128)
    assert one.tiles == ((1, 2), (2, 2))


def test_what_is_too_much_is_right_and_below():
    grid = TileGrid(960, 960, 96, 96, 960)
    (one,) = plan(grid, [(0, 0)], margin=64, stride=16, step=64)
    assert one.box == (-64, -64, 256, 256)


def test_tiles_that_are_no_whole_cells_apart_are_alone():
    grid = TileGrid(1000, 1000, 96, 24, 960)
    assert all(len(one.tiles) == 1 for one in plan(grid))


def test_the_order_in_which_tiles_are_given_does_not_count():
    grid = TileGrid(2000, 3000, 224, 224, 1792)
    tiles = list(product(range(grid.rows), range(grid.cols)))
    assert plan(grid, tiles) == plan(grid, tiles[::-1])
