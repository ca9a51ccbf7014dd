from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trace.rasters import (
    Labels,
    assert_same,
    blobs,
    build_polygons,
    rasters,
    scores_for,
    trace_in_blocks,
)
from wsiseg.annotations import Region
from wsiseg.trace import polygon_areas, simplify_regions, smooth_regions, trace_regions
from wsiseg.trace.simplify import SMOOTH_UNITS


def trace(labels: Labels, block: int = 100) -> list[Region]:
    return trace_in_blocks(labels, scores_for(labels), block, junctions=True)


def assert_coverage(regions: list[Region]) -> None:
    """Valid polygons without gaps, overlaps or unshared vertices between them."""
    polygons = build_polygons(regions)
    assert shapely.is_valid(polygons).all()
    assert shapely.coverage_is_valid(polygons)


def assert_same_neighbours(one: list[Region], two: list[Region], units: int = 1) -> None:
    """Each region lies between the same others: it has the same holes, each beside the same."""
    for before, after in zip(one, two, strict=True):
        assert len(before.holes) == len(after.holes)
        assert (before.label, before.area_px * units**2, before.confidence) == (
            after.label, after.area_px, after.confidence,
        )  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(labels=rasters(), tolerance=st.floats(0.1, 8), block=st.integers(2, 30))
def test_stays_a_valid_coverage_for_every_block_size(
    labels: Labels, tolerance: float, block: int
) -> None:
    regions = trace(labels, block)
    simple = simplify_regions(regions, tolerance)
    assert_same(simple, simplify_regions(trace(labels), tolerance))
    assert_same_neighbours(regions, simple)
    if not simple:
        return
    assert_coverage(simple)
    for one, two in zip(regions, simple, strict=True):
        assert two.exterior.dtype == np.int32
        assert {*map(tuple, two.exterior.tolist())} <= {*map(tuple, one.exterior.tolist())}


@settings(max_examples=100, deadline=None)
@given(labels=rasters(), tolerance=st.sampled_from([0.0, 1.0, 4.0, 1e9]))
def test_what_touches_nothing_keeps_its_side(labels: Labels, tolerance: float) -> None:
    """Background is an area too: the polygons' union keeps its parts and its holes."""
    regions = trace(labels)
    if not regions:
        return
    simple = simplify_regions(regions, tolerance)
    before, after = (shapely.get_parts(shapely.union_all(build_polygons(r)))
                     for r in (regions, simple))  # fmt: skip
    # Parts that touch at a corner may be counted either way, so compare what encloses what.
    assert (
        shapely.get_num_interior_rings(after).sum() == shapely.get_num_interior_rings(before).sum()
    )
    assert len(after) == len(before)


@settings(max_examples=150, deadline=None)
@given(labels=rasters(), tolerance=st.sampled_from([0.0, 1.0, 3.0]), passes=st.integers(1, 3))
def test_smooth_borders_stay_a_valid_coverage(
    labels: Labels, tolerance: float, passes: int
) -> None:
    regions = simplify_regions(trace(labels), tolerance)
    smooth = regions
    for _ in range(passes):
        smooth = smooth_regions(smooth)
    assert_same_neighbours(regions, smooth, SMOOTH_UNITS**passes)
    if smooth:
        assert_coverage(smooth)


def test_smoothing_rounds_a_square_and_keeps_a_junction() -> None:
    labels = np.array([[0, 0], [0, 0]], np.uint8)
    (square,) = smooth_regions(simplify_regions(trace(labels), 0.5))
    assert square.exterior.tolist() == [
        [0, 2], [2, 0], [6, 0], [8, 2], [8, 6], [6, 8], [2, 8], [0, 6], [0, 2],
    ]  # fmt: skip
    assert polygon_areas([square])[0] == (4 - 4 * 0.125) * SMOOTH_UNITS**2
    left, right = smooth_regions(trace(np.array([[0, 1]], np.uint8)))
    for ring in (left.exterior, right.exterior):
        assert {(4, 0), (4, 4)} <= {*map(tuple, ring.tolist())}


def test_a_slide_like_map_shrinks_and_keeps_its_areas() -> None:
    labels = blobs((500, 500), 4, 7, coarse=9)
    simple = simplify_regions(trace(labels, 200), 4.0)
    exact = trace_regions(labels)
    assert sum(len(r.exterior) for r in simple) < sum(len(r.exterior) for r in exact) / 3
    areas = polygon_areas(simple)
    for label in range(4):
        drawn = areas[[region.label == label for region in simple]].sum()
        assert drawn == pytest.approx((labels == label).sum(), rel=0.005)


def test_is_not_much_coarser_or_finer_than_geos() -> None:
    regions = trace(blobs((300, 300), 4, 3, coarse=6))
    for tolerance in (1.0, 4.0):
        ours = sum(len(ring) for r in simplify_regions(regions, tolerance)
                   for ring in (r.exterior, *r.holes))  # fmt: skip
        theirs = shapely.coverage_simplify(build_polygons(regions), tolerance)
        assert ours == pytest.approx(shapely.get_num_coordinates(theirs).sum(), rel=0.1)


@settings(max_examples=50, deadline=None)
@given(labels=rasters())
def test_polygon_areas_are_shapelys(labels: Labels) -> None:
    regions = trace_regions(labels)
    areas = polygon_areas(regions)
    assert areas.tolist() == [region.area_px for region in regions]
    if regions:
        assert areas.tolist() == shapely.area(build_polygons(regions)).tolist()


def test_no_regions() -> None:
    assert simplify_regions([], 2.0) == smooth_regions([]) == []
