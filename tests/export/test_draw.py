import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tests.export.stores import outline
from tests.trace.rasters import blobs, noise
from wsiseg.annotations import BACKGROUND, PALETTES, Annotations, Region
from wsiseg.export.draw import RegionRaster, own_size
from wsiseg.geometry import Box, Size
from wsiseg.trace import trace_regions


def annotate(regions, mpp=1.0):
    return Annotations("a.svs", PALETTES["bcss"], tuple(regions), (1.0, 1.0), mpp)


def whole(raster):
    return raster.read(Box(0, 0, *raster.size))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 4), st.integers(0, 99), st.booleans())
def test_what_was_traced_is_drawn_back(height, width, classes, seed, noisy):
    labels = (noise if noisy else blobs)((height, width), classes, seed)
    raster = RegionRaster(annotate(trace_regions(labels)), Size(width, height))
    np.testing.assert_array_equal(whole(raster), labels)


@settings(max_examples=40, deadline=None)
@given(st.integers(-9, 70), st.integers(-9, 70), st.integers(1, 80), st.integers(1, 80))
def test_windows_are_parts_of_the_whole(x, y, width, height):
    labels = np.pad(blobs((50, 60), 4, 3), 100, constant_values=BACKGROUND)
    raster = RegionRaster(annotate(trace_regions(labels[100:150, 100:160])), Size(60, 50))
    want = labels[100 + y : 100 + y + height, 100 + x : 100 + x + width]
    np.testing.assert_array_equal(raster.read(Box(x, y, width, height)), want[:, :])


@pytest.mark.parametrize("mpp", [0.5, 1.0, 2.0, 3.0, 1.37, 7.0])
def test_a_pixel_has_the_label_at_its_centre(mpp):
    labels = np.kron(blobs((60, 50), 4, 1), np.ones((3, 3), np.uint8))
    raster = RegionRaster(annotate(trace_regions(labels)), Size(150, 180), mpp)
    assert raster.size == (-(-150 // mpp), -(-180 // mpp))
    # A centre that lies on a border belongs to the pixel at its right and below.
    rows, cols = (np.floor((np.arange(n) + 0.5) * mpp).astype(int) for n in reversed(raster.size))
    padded = np.pad(labels, ((0, 9), (0, 9)), constant_values=BACKGROUND)
    np.testing.assert_array_equal(whole(raster), padded[np.ix_(rows, cols)])


@pytest.mark.parametrize("setting", [{"simplify_um": 4.0}, {"smooth": 2}])
def test_borders_that_were_redrawn_leave_no_gap(store, labels, setting):
    regions = outline(store, **setting)
    raster = RegionRaster(regions, own_size(store, regions), store.mpp)
    drawn = whole(raster)
    assert 0.95 < (drawn == labels).mean() < 1
    inside = labels[100:590, 120:790] != BACKGROUND
    assert ((drawn[100:590, 120:790] != BACKGROUND) == inside).mean() > 0.97
    # Where two regions overlapped, their labels would add up to a class that is not near.
    for label in np.unique(drawn):
        near = ndimage.binary_dilation(labels == label, iterations=20)
        assert near[drawn == label].all()
    for shift in (0, 3):  # windows cut through slanting edges alike
        part = Box(200 + shift, 300, 301, 257)
        np.testing.assert_array_equal(raster.read(part), drawn[part.slices()])


def test_either_way_round():
    shell = np.array([[0, 0], [6, 0], [6, 5], [0, 5], [0, 0]], np.int32)
    hole = np.array([[2, 2], [4, 2], [4, 4], [2, 4], [2, 2]], np.int32)
    want = np.full((5, 6), 2, np.uint8)
    want[2:4, 2:4] = BACKGROUND
    for outer in (shell, shell[::-1]):
        for inner in (hole, hole[::-1]):
            region = Region(2, np.ascontiguousarray(outer), (np.ascontiguousarray(inner),), 26, 1.0)
            raster = RegionRaster(annotate([region]), Size(6, 5))
            np.testing.assert_array_equal(whole(raster), want)


def test_no_region_is_background():
    raster = RegionRaster(annotate([]), Size(7, 3))
    assert (whole(raster) == BACKGROUND).all()
