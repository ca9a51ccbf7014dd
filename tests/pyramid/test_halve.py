from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsiseg.pyramid import halve_confidence, halve_labels

sides = st.tuples(st.integers(1, 9), st.integers(1, 9))
rasters = arrays(np.uint8, sides, elements=st.sampled_from([0, 1, 2, 255]))


@settings(max_examples=60, deadline=None)
@given(labels=rasters)
def test_labels_are_the_most_frequent_of_each_square(labels):
    half = halve_labels(labels)
    for y, x in np.ndindex(*half.shape):
        votes = Counter(labels[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel().tolist())
        most = max(votes.values())
        assert half[y, x] == min(label for label, count in votes.items() if count == most)


@pytest.mark.parametrize("shape", [(64, 200), (33, 257), (1, 130)])
def test_wide_rasters_halve_as_narrow_ones(shape):
    labels = np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), shape)
    for halve in (halve_labels, halve_confidence):
        half = halve(labels)
        for x in range(half.shape[1]):
            np.testing.assert_array_equal(half[:, x], halve(labels[:, 2 * x : 2 * x + 2])[:, 0])


def test_confidence_is_the_rounded_mean():
    got = halve_confidence(np.array([[0, 1, 255], [2, 255, 255], [7, 8, 9]], np.uint8))
    np.testing.assert_array_equal(got, [[65, 255], [8, 9]])
