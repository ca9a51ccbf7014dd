import numpy as np
import pytest

from wsiseg.learn.precision import average_precision, mean_known, precision_by_class


def slow_precision(scores, labels):
    """By its definition: over every threshold, the gain in recall times the precision."""
    total, recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = scores >= threshold
        reached = labels[chosen].sum() / labels.sum()
        total += (reached - recall) * labels[chosen].mean()
        recall = reached
    return total


@pytest.mark.parametrize("levels", [3, 1000])
def test_average_precision_is_that_of_every_threshold(levels):
    rng = np.random.default_rng(levels)
    for _ in range(20):
        labels = rng.random(40) < 0.3
        labels[0], labels[1] = True, False
        scores = rng.integers(0, levels, 40).astype(np.float32)
        assert average_precision(scores, labels) == pytest.approx(slow_precision(scores, labels))


def test_what_nobody_knows_is_left_out_and_one_answer_has_no_score():
    nan = float("nan")
    labels = np.array([[1, 1, nan], [0, 1, 1], [nan, 1, 0]], np.float32)
    found = precision_by_class(np.array([[2, 0, 0], [1, 0, 5], [9, 0, 6]], np.float32), labels)
    np.testing.assert_allclose(found, [[1, nan, 0.5], [0.5, nan, 0.5]])
    np.testing.assert_allclose(mean_known(found), [0.75, nan, 0.5])
