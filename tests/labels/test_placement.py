"""Windows on areas of any size and shape."""

import numpy as np
import pytest
import shapely

from wsiseg.geometry import Box
from wsiseg.grid import TileGrid
from wsiseg.labels.placement import CELLS, draw_cells, place_windows

SIDE = 56
GRID = TileGrid(400, 500, SIDE, SIDE, 2 * SIDE)


def place(area, least=0.5):
    return [box for row in place_windows(area, GRID, least) for box in row]


def square_of(box):
    return shapely.box(box.x, box.y, box.right, box.bottom)


@pytest.mark.parametrize("at", [(100, 100), (131.5, 90.25)])
@pytest.mark.parametrize("side", [1, 10, 56, 80])
def test_a_small_area_has_one_window_about_its_middle(at, side):
    (x, y) = at
    (box,) = place(shapely.box(x, y, x + side, y + side))
    assert abs(box.x + SIDE / 2 - (x + side / 2)) <= 0.5
    assert abs(box.y + SIDE / 2 - (y + side / 2)) <= 0.5


def test_a_large_area_is_covered_without_overlap():
    area = shapely.box(70, 30, 70 + 3 * SIDE, 30 + 2 * SIDE)
    boxes = place(area)
    assert [(b.x, b.y) for b in boxes] == [
        (70 + c * SIDE, 30 + r * SIDE) for r in range(2) for c in range(3)
    ]
    odd = place(shapely.box(70, 30, 70 + 200, 30 + 130))
    squares = [square_of(box) for box in odd]
    assert shapely.union_all(squares).area > 0.9 * sum(square.area for square in squares)


def test_windows_hug_an_odd_shape_and_none_is_lost():
    disc = shapely.Point(200, 200).buffer(90)
    boxes = place(disc)
    shares = [shapely.intersection(disc, square_of(box)).area / SIDE**2 for box in boxes]
    assert min(shares) > 0.5
    thin = shapely.LineString([(40, 40), (300, 340)]).buffer(2)
    assert len(place(thin)) == 5, "none is covered enough, so those along it are taken"
    comma = shapely.union_all([thin, shapely.box(40, 40, 72, 68)])
    assert len(place(comma)) == 1, "those covered half as much as the fullest"
    several = shapely.union_all([thin, shapely.box(400, 100, 404, 104), disc])
    assert place(several) == place(several)
    assert Box(374, 74, SIDE, SIDE) in place(several)


def test_windows_stay_in_the_raster():
    (box,) = place(shapely.box(495, 0, 500, 5))
    assert box == Box(500 - SIDE, 0, SIDE, SIDE)


def test_cells_are_those_whose_centres_lie_within_and_never_none():
    box = Box(100, 200, SIDE, SIDE)
    known = draw_cells(shapely.box(100, 200, 128, 214), box)
    wanted = np.zeros((CELLS, CELLS), bool)
    wanted[:7, :14] = True
    assert np.array_equal(known, wanted)
    known = draw_cells(shapely.box(152.1, 203.2, 152.4, 203.4), box)
    assert np.argwhere(known).tolist() == [[1, 26]]
