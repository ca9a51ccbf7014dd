from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trace.rasters import Labels, blobs, rasters, scores_for, trace_in_blocks
from wsiseg.trace import polygon_area, simplify_regions, trace_regions
from wsiseg.trace.simplify import build_polygons


@settings(max_examples=100, deadline=None)
@given(labels=rasters(), tolerance=st.floats(0.1, 8), block=st.integers(2, 30))
def test_stays_a_valid_coverage(labels: Labels, tolerance: float, block: int) -> None:
    regions = trace_in_blocks(labels, scores_for(labels), block, junctions=True)
    simple = simplify_regions(regions, tolerance)
    assert [(r.label, r.area_px, r.confidence) for r in simple] == [
        (r.label, r.area_px, r.confidence) for r in regions
    ]
    if not simple:
        return
    polygons = build_polygons(simple)
    assert shapely.is_valid(polygons).all()
    assert shapely.coverage_is_valid(polygons)
    for one, two in zip(regions, simple, strict=True):
        assert two.exterior.dtype == np.int32
        assert {*map(tuple, two.exterior.tolist())} <= {*map(tuple, one.exterior.tolist())}


def test_a_slide_like_map_shrinks_and_keeps_its_areas() -> None:
    labels = blobs((500, 500), 4, 7, coarse=9)
    simple = simplify_regions(trace_in_blocks(labels, labels, 200, junctions=True), 4.0)
    exact = trace_regions(labels)
    assert sum(len(r.exterior) for r in simple) < sum(len(r.exterior) for r in exact) / 3
    for label in range(4):
        drawn = sum(polygon_area(region) for region in simple if region.label == label)
        assert drawn == pytest.approx((labels == label).sum(), rel=0.005)


@settings(max_examples=50, deadline=None)
@given(labels=rasters())
def test_polygon_area_is_shapelys(labels: Labels) -> None:
    for region in trace_regions(labels):
        assert polygon_area(region) == shapely.area(build_polygons([region]))[0] == region.area_px


def test_no_regions() -> None:
    assert simplify_regions([], 2.0) == []
