import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsiseg.stitch.majority import majority_filter

sides = st.tuples(st.integers(1, 14), st.integers(1, 14))
rasters = arrays(np.uint8, sides, elements=st.integers(0, 3))


@settings(max_examples=80, deadline=None)
@given(labels=rasters, radius=st.integers(0, 4))
def test_equals_counting_each_square(labels, radius):
    got = majority_filter(labels, radius, 4)
    for y, x in np.ndindex(*labels.shape):
        rows, cols = (slice(max(0, at - radius), at + radius + 1) for at in (y, x))
        counts = np.bincount(labels[rows, cols].ravel(), minlength=4)
        most = np.flatnonzero(counts == counts.max())
        assert got[y, x] == (labels[y, x] if labels[y, x] in most else most[0])


@settings(max_examples=40, deadline=None)
@given(labels=arrays(np.uint8, (20, 22), elements=st.integers(0, 2)), radius=st.integers(1, 4))
def test_a_box_with_its_margin_equals_the_crop_of_the_whole(labels, radius):
    whole = majority_filter(labels, radius, 3)
    part = majority_filter(labels[6 - radius : 14 + radius, 5 - radius : 15 + radius], radius, 3)
    np.testing.assert_array_equal(part[radius:-radius, radius:-radius], whole[6:14, 5:15])


def test_specks_go_and_straight_borders_stay():
    labels = np.zeros((40, 40), np.uint8)
    labels[:, 20:] = 1
    clean = labels.copy()
    labels[10, 10] = 2
    labels[30, 25:27] = 0
    np.testing.assert_array_equal(majority_filter(labels, 3, 3), clean)


def test_counts_that_need_more_than_16_bits():
    labels = np.random.default_rng(0).integers(0, 3, (260, 230)).astype(np.uint8)
    labels[:, :120] = 2
    got = majority_filter(labels, 100, 3)
    for y, x in [(0, 0), (130, 115), (259, 229), (40, 200), (150, 5)]:
        square = labels[max(0, y - 100) : y + 101, max(0, x - 100) : x + 101]
        counts = np.bincount(square.ravel(), minlength=3)
        most = np.flatnonzero(counts == counts.max())
        assert got[y, x] == (labels[y, x] if labels[y, x] in most else most[0])
