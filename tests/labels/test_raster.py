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
