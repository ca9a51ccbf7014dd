import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from wsiseg.geometry import Box
from wsiseg.grid import TileGrid
from wsiseg.stitch.blend import blend_cams, reach, window


def random_cams(grid, classes, cells, seed=0):
    shape = (grid.rows, grid.cols, classes, cells, cells)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def blend_slowly(grid, box, cams):
    """Every cell's tent at every pixel, summed in float64; NaN where no tile reaches."""
    rows, cols, classes, cells, _ = cams.shape
    side = grid.tile / cells
    weights = window(grid, cells).astype(float)
    total, mass = np.zeros((classes, box.height, box.width)), np.zeros((box.height, box.width))
    ys, xs = box.y + np.arange(box.height) + 0.5, box.x + np.arange(box.width) + 0.5
    for row in range(rows):
        for col in range(cols):
            if np.isnan(cams[row, col]).any():
                continue
            for i in range(cells):
                for j in range(cells):
                    y = row * grid.stride + (i + 0.5) * side
                    x = col * grid.stride + (j + 0.5) * side
                    tent = np.outer(
                        np.clip(1 - abs(ys - y) / side, 0, None),
                        np.clip(1 - abs(xs - x) / side, 0, None),
                    )
                    mass += tent * weights[i] * weights[j]
                    total += tent * weights[i] * weights[j] * cams[row, col, :, i, j, None, None]
    with np.errstate(invalid="ignore"):
        return total / mass, mass > 1e-9


grids = st.sampled_from([(32, 32), (32, 16), (32, 8), (24, 16), (30, 10)])


@settings(max_examples=25, deadline=None)
@given(sides=grids, cells=st.sampled_from([2, 3, 5, 8]), seed=st.integers(0, 99))
def test_fast_equals_slow(sides, cells, seed):
    tile, stride = sides
    grid = TileGrid(70, 90, tile, stride, tile * stride)
    cams = random_cams(grid, 2, cells, seed)
    cams[0, 0] = np.nan
    box = Box(3, 5, 60, 50)
    field, reached = blend_cams(grid, box, (0, 0), cams)
    want, mask = blend_slowly(grid, box, cams)
    np.testing.assert_array_equal(reached, mask)
    np.testing.assert_allclose(field[:, mask], want[:, mask], atol=2e-4)
    assert (field[:, ~mask] == 0).all()


@pytest.mark.parametrize("stride", [224, 112, 56])
@pytest.mark.parametrize("cells", [7, 28])
def test_a_constant_field_stays_constant(stride, cells):
    grid = TileGrid(700, 500, 224, stride, 448)
    cams = np.full((grid.rows, grid.cols, 1, cells, cells), 3.25, np.float32)
    field, reached = blend_cams(grid, grid.box, (0, 0), cams)
    assert reached.all()
    np.testing.assert_allclose(field, 3.25, rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    x=st.integers(0, 60), y=st.integers(0, 40), width=st.integers(1, 30), height=st.integers(1, 30)
)
def test_a_box_equals_the_crop_of_the_whole_bit_by_bit(x, y, width, height):
    grid = TileGrid(70, 90, 32, 16, 32)
    cams = random_cams(grid, 3, 4)
    whole, _ = blend_cams(grid, grid.box, (0, 0), cams)
    box = Box(x, y, width, height)
    tiles = list(grid.touching(box.grow(reach(grid, 4))))
    (top, left), (bottom, right) = tiles[0], tiles[-1]
    part, _ = blend_cams(grid, box, (top, left), cams[top : bottom + 1, left : right + 1])
    np.testing.assert_array_equal(part, whole[(slice(None), *box.slices())])


def test_tiles_side_by_side_are_one_bilinear_surface():
    grid = TileGrid(64, 96, 32, 32, 32)
    cams = random_cams(grid, 1, 4)
    field, _ = blend_cams(grid, grid.box, (0, 0), cams)
    mosaic = cams[:, :, 0].transpose(0, 2, 1, 3).reshape(8, 12)
    at = [(np.arange(n) + 0.5) / 8 - 0.5 for n in (64, 96)]
    want = map_coordinates(mosaic, np.meshgrid(*at, indexing="ij"), order=1, mode="nearest")
    np.testing.assert_allclose(field[0], want, atol=1e-5)


@pytest.mark.parametrize("stride", [24, 16, 8])
def test_windows_of_overlapping_tiles_add_up(stride):
    weights = window(TileGrid(100, 100, 32, stride, 96), 16)
    line = np.zeros(16 * 8)
    for first in range(0, len(line) - 16, stride // 2):
        line[first : first + 16] += weights
    inside = line[16:-32]
    np.testing.assert_allclose(inside, inside[0], rtol=1e-6)


def test_a_tiles_outermost_cells_hardly_count():
    """A model with padding knows least of them."""
    weights = window(TileGrid(448, 448, 224, 112, 448), 28)
    assert weights[0] / weights[13] < 0.004
