import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsiseg.errors import DataError
from wsiseg.evaluate import confusion_matrix, score

TRUTH = np.array([[0, 0, 0, 1], [1, 1, 255, 255]], np.uint8)
FOUND = np.array([[0, 0, 1, 1], [1, 255, 0, 255]], np.uint8)


def test_confusion_by_hand():
    want = [[2, 1, 0], [0, 2, 1], [1, 0, 1]]
    matrix = confusion_matrix(TRUTH, FOUND, 2)
    assert matrix.tolist() == want
    assert matrix.dtype == np.int64


def test_scores_by_hand():
    scores = score(confusion_matrix(TRUTH, FOUND, 2))
    # Class 0: 2 hit, 3 true, 3 found, one of them on background, which counts in the union.
    assert scores.iou == pytest.approx((2 / 4, 2 / 4))
    assert scores.dice == pytest.approx((4 / 6, 4 / 6))
    assert scores.miou == pytest.approx(0.5)
    assert scores.mdice == pytest.approx(2 / 3)
    # Background has IoU 1/3 and is weighted in, 2 of 8 pixels.
    assert scores.fwiou == pytest.approx(3 / 8 * 0.5 + 3 / 8 * 0.5 + 2 / 8 / 3)
    assert scores.area_error == pytest.approx((0, 0))
    assert scores.absent == ()


def test_area_error_counts_pixels_not_places():
    truth = np.array([0, 0, 0, 0, 1, 1], np.uint8)
    found = np.array([1, 0, 0, 1, 1, 255], np.uint8)
    assert score(confusion_matrix(truth, found, 2)).area_error == pytest.approx((0.5, 0.5))


def test_a_class_that_is_nowhere_is_left_out_and_told():
    scores = score(confusion_matrix(TRUTH, FOUND, 3))
    assert scores.absent == (2,)
    assert math.isnan(scores.iou[2])
    assert math.isnan(scores.dice[2])
    assert math.isnan(scores.area_error[2])
    assert scores.miou == pytest.approx(0.5)


def test_a_class_found_but_not_true_counts_as_missed():
    scores = score(confusion_matrix(np.zeros(4, np.uint8), np.array([0, 0, 0, 1], np.uint8), 2))
    assert scores.iou == (0.75, 0.0)
    assert scores.miou == pytest.approx(0.375)
    assert math.isnan(scores.area_error[1])
    assert scores.absent == ()


def test_nothing_to_score():
    scores = score(confusion_matrix(np.empty(0, np.uint8), np.empty(0, np.uint8), 2))
    assert math.isnan(scores.miou)
    assert math.isnan(scores.fwiou)
    assert scores.absent == (0, 1)


labels = st.lists(st.sampled_from([0, 1, 2, 255]), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_agrees_with_counting_sets(data):
    truth = np.array(data.draw(labels), np.uint8)
    found = np.array(data.draw(st.lists(st.sampled_from([0, 1, 2, 255]), min_size=len(truth),
                                        max_size=len(truth))), np.uint8)  # fmt: skip
    scores = score(confusion_matrix(truth, found, 3))
    for label in range(3):
        mine = {i for i, value in enumerate(truth) if value == label}
        theirs = {i for i, value in enumerate(found) if value == label}
        if mine | theirs:
            assert scores.iou[label] == pytest.approx(len(mine & theirs) / len(mine | theirs))
        else:
            assert label in scores.absent
        if mine:
            error = abs(len(theirs) - len(mine)) / len(mine)
            assert scores.area_error[label] == pytest.approx(error)
    perfect = score(confusion_matrix(truth, truth, 3))
    assert perfect.fwiou == pytest.approx(1)


def test_matrices_add_up():
    whole = confusion_matrix(TRUTH, FOUND, 2)
    parts = [confusion_matrix(t, f, 2) for t, f in zip(TRUTH, FOUND, strict=True)]
    assert (sum(parts) == whole).all()


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(DataError, match=r"truth is \(2, 4\), prediction \(4,\)"):
        confusion_matrix(TRUTH, FOUND[0], 2)
    with pytest.raises(
        DataError, match=r"truth holds the labels \[1\]; with 1 classes they are 0 to"
    ):
        confusion_matrix(TRUTH, FOUND, 1)
    with pytest.raises(DataError, match=r"prediction holds the labels \[7\]"):
        confusion_matrix(TRUTH, np.full_like(TRUTH, 7), 2)
