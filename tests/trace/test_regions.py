from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.trace.rasters import (
    Labels,
    assert_same,
    build_polygons,
    draw,
    fill,
    flood,
    rasters,
    scores_for,
    squares,
    trace_in_blocks,
)
from wsiseg.annotations import BACKGROUND
from wsiseg.errors import GeometryError
from wsiseg.geometry import Box
from wsiseg.trace import margin_box, merge_blocks, trace_block, trace_regions

o = BACKGROUND


def twice_area(ring: NDArray[np.int32]) -> int:
    x, y = ring.T.astype(int)
    return int((x[:-1] * y[1:] - x[1:] * y[:-1]).sum())


@settings(max_examples=300, deadline=None)
@given(labels=rasters())
def test_regions_are_the_flood_filled_ones(labels: Labels) -> None:
    scores = scores_for(labels)
    regions, want = trace_regions(labels, scores), flood(labels)
    assert len(regions) == len(want)
    np.testing.assert_array_equal(draw(regions, labels.shape), labels)
    for region, (label, mask) in zip(regions, want, strict=True):
        assert region.label == label
        np.testing.assert_array_equal(fill(region, labels.shape), mask)
        assert region.area_px == mask.sum()
        assert 0.5 * sum(map(twice_area, (region.exterior, *region.holes))) == mask.sum()
        assert region.confidence == pytest.approx(scores[mask].mean() / 255)


@settings(max_examples=300, deadline=None)
@given(labels=rasters())
def test_polygons_are_valid_and_rings_canonical(labels: Labels) -> None:
    regions = trace_regions(labels)
    if regions:
        assert shapely.is_valid(build_polygons(regions)).all()
    for region in regions:
        assert twice_area(region.exterior) > 0
        for ring in (region.exterior, *region.holes):
            assert ring.dtype == np.int32
            assert (ring[0] == ring[-1]).all()
            inner = [(int(y), int(x)) for x, y in ring[:-1]]
            assert min(inner) == inner[0]
            assert len(set(inner)) == len(inner)
            steps = np.diff(np.concatenate([ring, ring[1:2]]), axis=0)
            assert ((steps == 0).sum(axis=1) == 1).all()
            assert ((steps[1:] == 0) != (steps[:-1] == 0)).all()
        assert all(twice_area(hole) < 0 for hole in region.holes)
    firsts = [(r.label, *r.exterior[0, ::-1].tolist()) for r in regions]
    assert firsts == sorted(firsts)


@settings(max_examples=200, deadline=None)
@given(labels=rasters(), block=st.integers(1, 30), junctions=st.booleans())
def test_blocks_give_what_the_whole_gives(labels: Labels, block: int, junctions: bool) -> None:
    scores = scores_for(labels)
    want = trace_in_blocks(labels, scores, 100, junctions)
    assert_same(trace_in_blocks(labels, scores, block, junctions), want)
    if not junctions:
        assert_same(trace_regions(labels, scores), want)


@settings(max_examples=4, deadline=None)
@given(labels=rasters(st.tuples(st.integers(200, 330), st.integers(200, 330))))
def test_larger_rasters(labels: Labels) -> None:
    scores = scores_for(labels)
    want = trace_regions(labels, scores)
    for block in (64, 128, 256):
        assert_same(trace_in_blocks(labels, scores, block), want)
    if want:
        polygons = build_polygons(want)
        assert shapely.is_valid(polygons).all()
        assert (shapely.area(polygons) == [region.area_px for region in want]).all()


@settings(max_examples=150, deadline=None)
@given(labels=rasters(), block=st.integers(2, 30))
def test_junctions_make_a_valid_coverage(labels: Labels, block: int) -> None:
    regions = trace_in_blocks(labels, scores_for(labels), block, junctions=True)
    np.testing.assert_array_equal(draw(regions, labels.shape), labels)
    if regions:
        polygons = build_polygons(regions)
        assert shapely.is_valid(polygons).all()
        assert shapely.coverage_is_valid(polygons)


def test_a_pinched_ring_is_an_exterior_and_a_hole() -> None:
    labels = np.array([[o, 0, 0], [0, o, 0], [0, 0, 0]], np.uint8)
    (region,) = trace_regions(labels)
    assert region.exterior.tolist() == [
        [1, 0], [3, 0], [3, 3], [0, 3], [0, 1], [1, 1], [1, 0],
    ]  # fmt: skip
    assert [hole.tolist() for hole in region.holes] == [[[1, 1], [1, 2], [2, 2], [2, 1], [1, 1]]]
    assert (region.area_px, region.confidence) == (7, 1.0)


def test_pixels_that_touch_at_a_corner_are_two_regions() -> None:
    regions = trace_regions(np.array([[3, o], [o, 3]], np.uint8))
    assert [region.exterior[0].tolist() for region in regions] == [[0, 0], [1, 1]]
    assert [region.area_px for region in regions] == [1, 1]


def test_no_vertex_where_blocks_meet_inside_an_edge() -> None:
    labels = np.zeros((64, 64), np.uint8)
    (region,) = trace_in_blocks(labels, labels, 16)
    assert region.exterior.tolist() == [[0, 0], [64, 0], [64, 64], [0, 64], [0, 0]]


def test_background_is_what_one_says() -> None:
    labels = np.array([[0, 255], [255, 0]], np.uint8)
    assert {region.label for region in trace_regions(labels, background=0)} == {255}
    assert trace_regions(np.full((4, 4), 7, np.uint8), background=7) == []
    assert trace_regions(np.zeros((0, 5), np.uint8)) == []


def test_arrays_that_are_not_contiguous_or_not_writable() -> None:
    labels = np.repeat(np.arange(4, dtype=np.uint8), 8).reshape(4, 8)
    want = trace_regions(np.ascontiguousarray(labels.T))
    assert_same(trace_regions(labels.T), want)
    labels.setflags(write=False)
    box = margin_box(Box(0, 0, 8, 4), Box(0, 0, 9, 9))
    assert box == Box(-1, -1, 9, 5)
    assert trace_block(labels, labels, (0, 0), BACKGROUND) is not None


def test_wrong_arrays_are_refused() -> None:
    with pytest.raises(GeometryError, match=r"labels is int64 \(2, 2\); uint8 of \(2, 2\)"):
        trace_regions(np.zeros((2, 2), np.int64))  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(GeometryError, match="labels has 1 dimensions"):
        trace_regions(np.zeros(4, np.uint8))
    with pytest.raises(GeometryError, match=r"confidence is uint8 \(3, 2\); uint8 of \(2, 2\)"):
        trace_regions(np.zeros((2, 2), np.uint8), np.zeros((3, 2), np.uint8))


def test_a_missing_block_is_noticed() -> None:
    labels, traces = np.zeros((8, 8), np.uint8), {}
    for i, square in squares(labels, 4).items():
        box = margin_box(square, Box(0, 0, 8, 8))
        view = np.pad(labels, 1, constant_values=o)[box.y + 1 : box.bottom + 1, box.x + 1 :]
        traces[i] = trace_block(view[:, : box.width], None, (square.x, square.y), o)
    assert len(merge_blocks(traces, 2, scored=False)) == 1
    traces[3] = None
    with pytest.raises(GeometryError, match="run on into a block that was not traced"):
        merge_blocks(traces, 2)
