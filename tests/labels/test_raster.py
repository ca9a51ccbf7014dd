import numpy as np
import pytest
import shapely

from wsiseg.geometry import Box
from wsiseg.labels import draw_area


@pytest.mark.parametrize("seed", range(4))
def test_a_pixel_is_in_an_area_if_its_centre_is(seed):
    rng = np.random.default_rng(seed)
    discs = [shapely.Point(*rng.uniform(0, 400, 2)).buffer(rng.uniform(3, 150)) for _ in range(6)]
    shape = shapely.difference(shapely.union_all(discs[:4]), shapely.union_all(discs[4:]))
    box = Box(37, 11, 301, 290)
    x, y = np.meshgrid(np.arange(301) + 37.5, np.arange(290) + 11.5)
    assert np.array_equal(draw_area(shape, box), shapely.contains_xy(shape, x, y))
    assert not draw_area(shapely.Polygon(), box).any()


def test_a_collection_is_drawn_all_the_way_down():
    two = shapely.MultiPolygon([shapely.box(3, 3, 6, 6), shapely.box(-9, 7, 4, 99)])
    line = shapely.LineString([(0, 0), (9, 9)])
    box = Box(0, 0, 10, 12)
    mask = draw_area(shapely.GeometryCollection([two, line]), box)
    assert np.array_equal(mask, draw_area(two, box))
    assert mask.sum() == 9 + 4 * 5


def test_a_centre_on_a_common_border_is_in_one_of_the_two():
    left, right = (
        draw_area(shapely.box(*xs[:1], 0.5, xs[1], 4.5), Box(0, 0, 6, 6))
        for xs in ((0.5, 2.5), (2.5, 5.5))
    )
    assert not (left & right).any()
    assert (left | right).sum() == 5 * 4
