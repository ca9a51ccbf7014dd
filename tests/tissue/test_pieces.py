from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from wsiseg.tissue.pieces import drop_small


@settings(deadline=None)  # the first example compiles
@given(
    seed=st.integers(0, 2**32),
    shape=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    share=st.sampled_from([0.0, 0.1, 0.4, 0.6, 0.9, 1.0]),
    area=st.sampled_from([0, 1, 2, 4, 25.5, 1e9]),
)
def test_small_pieces_go(seed: int, shape: tuple[int, int], share: float, area: float) -> None:
    mask = np.random.default_rng(seed).random(shape) < share
    pieces, count = ndimage.label(mask)
    areas = np.bincount(pieces.ravel(), minlength=count + 1)
    want = mask & (areas >= area)[pieces]
    np.testing.assert_array_equal(drop_small(mask, area), want)


def test_a_spiral_is_one_piece_and_corners_do_not_join() -> None:
    spiral = np.array([list(row) for row in ("#####", "....#", "###.#", "#...#", "#####")]) == "#"
    np.testing.assert_array_equal(drop_small(spiral, spiral.sum()), spiral)
    assert not drop_small(spiral, spiral.sum() + 1).any()
    assert not drop_small(np.eye(9, dtype=bool), 2).any()


@pytest.mark.parametrize("flip", [np.flipud, np.fliplr, np.transpose])
def test_any_memory_order(flip: object) -> None:
    mask = np.random.default_rng(0).random((30, 40)) < 0.5
    view = flip(mask)  # type: ignore[operator]  # NumPy's own
    np.testing.assert_array_equal(drop_small(view, 5), drop_small(view.copy(), 5))
