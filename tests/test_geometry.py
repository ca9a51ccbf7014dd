from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wsiseg.geometry import Box

boxes = st.builds(
    Box, st.integers(-9, 9), st.integers(-9, 9), st.integers(0, 12), st.integers(0, 12)
)


def pixels(box: Box) -> set[tuple[int, int]]:
    return {(x, y) for x in range(box.x, box.right) for y in range(box.y, box.bottom)}


@given(boxes, boxes)
def test_intersection_is_the_common_pixels(one: Box, other: Box) -> None:
    common = one.intersect(other)
    assert pixels(common) == pixels(one) & pixels(other)
    assert common.empty == (not pixels(common))
    assert common.width >= 0
    assert common.height >= 0


@given(boxes, st.integers(0, 5))
def test_grown_box_reaches_as_far_on_every_side(box: Box, margin: int) -> None:
    grown = box.grow(margin)
    reach = range(-margin, margin + 1)
    if not box.empty:
        wanted = {(x + dx, y + dy) for x, y in pixels(box) for dx in reach for dy in reach}
        assert pixels(grown) == wanted
    assert grown.grow(-margin) == box


@given(boxes, boxes)
def test_slices_pick_the_box_out_of_another_boxes_array(box: Box, outer: Box) -> None:
    rows, cols = np.mgrid[outer.y : outer.bottom, outer.x : outer.right]
    inside = box.intersect(outer)
    if inside.empty:
        return
    picked = inside.slices(outer)
    assert rows[picked].shape == (inside.height, inside.width)
    assert (rows[picked][0, 0], cols[picked][0, 0]) == (inside.y, inside.x)
    assert inside.slices() == inside.slices(Box(0, 0, 1, 1))


def test_edges_are_half_open() -> None:
    box = Box(2, 3, 4, 5)
    assert (box.right, box.bottom) == (6, 8)
    assert box.intersect(Box(6, 3, 4, 5)).empty
    assert Box(0, 0, 0, 9).empty
    assert Box(0, 0, -1, 9).empty
    assert not Box(-1, -1, 1, 1).empty
