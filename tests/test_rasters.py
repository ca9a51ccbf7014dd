import numpy as np
import pytest

from wsiseg.annotations import BACKGROUND

from .rasters import BLOCKS, KINDS, check_case, fill, make_case, trace_in_blocks

SAMPLE = 300


@pytest.mark.parametrize("first", range(0, SAMPLE, 50))
def test_rasters_of_every_kind_from_raster_to_file(tmp_path, first):
    """`python -m tests.rasters` checks 10,000."""
    for seed in range(first, first + 50):
        kind, _, _ = check_case(seed, tmp_path)
        assert kind == KINDS[seed % len(KINDS)].__name__


def test_the_sample_holds_what_it_should():
    cases = [make_case(seed) for seed in range(SAMPLE)]
    sides = [max(case.labels.shape) for case in cases]
    assert sum(side > max(BLOCKS) for side in sides) > 5, "several blocks of 256"
    assert sum(side > min(BLOCKS) for side in sides) > 15, "several blocks of 128"
    assert any(case.scale[0] != case.scale[1] for case in cases)
    assert any(not case.scale[0].is_integer() for case in cases)
    assert any(case.origin != (0, 0) for case in cases)
    touching = [case.labels for case in cases if case.kind == "diagonals"]
    assert any((one[:-1, :-1] == one[1:, 1:]).any() and (one[:-1, :-1] != one[:-1, 1:]).any()
               for one in touching if min(one.shape) > 1)  # fmt: skip


def test_the_check_itself_sees_a_wrong_pixel():
    """The even-odd filling, on a square with a hole, and twice on one that overlaps it."""
    square = [[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]]
    hole = [[1, 1], [1, 2], [2, 2], [2, 1], [1, 1]]
    points, stops = np.array([*square, *hole, *np.add(square, 3)]), np.array([5, 10, 15])
    drawn, times = np.full((7, 7), BACKGROUND, np.uint8), np.zeros((7, 7), np.uint16)
    fill(points, stops, np.array([0, 1], np.uint8), np.array([0, 0, 1]), drawn, times)
    assert times.sum() == 16 - 1 + 16
    assert (times[1, 1], times[3, 3], drawn[0, 0], drawn[6, 6]) == (0, 2, 0, 1)
    assert drawn[1, 1] == drawn[6, 0] == BACKGROUND


def test_blocks_here_cover_the_raster():
    labels = np.zeros((300, 20), np.uint8)
    (region,) = trace_in_blocks(labels, 128)
    assert region.area_px == 6000
