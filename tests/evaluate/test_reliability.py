import numpy as np
import pytest

from wsiseg.evaluate.reliability import draw_reliability, measure_reliability


def test_counts_means_and_error_are_those_of_a_plain_loop():
    rng = np.random.default_rng(0)
    confidence, right = rng.random(1000), rng.random(1000) < 0.6
    confidence[:2] = 0, 1
    found, total = measure_reliability(confidence, right, 10), 0.0
    for number in range(10):
        inside = [i for i, c in enumerate(confidence) if min(int(c * 10), 9) == number]
        assert found.counts[number] == len(inside)
        assert found.confidence[number] == pytest.approx(np.mean(confidence[inside]))
        assert found.accuracy[number] == pytest.approx(np.mean(right[inside]))
        total += len(inside) * abs(np.mean(confidence[inside]) - np.mean(right[inside]))
    assert found.ece == pytest.approx(total / 1000)


def test_parts_add_up_to_the_whole():
    rng = np.random.default_rng(1)
    confidence, right = rng.random(500) / 2, rng.random(500) < 0.3
    whole = measure_reliability(confidence, right)
    parts = measure_reliability(confidence[:200], right[:200])
    parts += measure_reliability(confidence[200:], right[200:])
    np.testing.assert_array_equal(parts.counts, whole.counts)
    np.testing.assert_allclose(parts.confidence, whole.confidence)
    assert parts.ece == pytest.approx(whole.ece)


def test_confidence_that_is_right_has_no_error_and_its_bars_touch_the_diagonal():
    rng = np.random.default_rng(2)
    confidence = rng.random(200_000)
    found = measure_reliability(confidence, rng.random(200_000) < confidence)
    assert found.ece < 0.01
    picture = np.asarray(draw_reliability(found, "test"))
    blue = (picture == (70, 120, 180)).all(axis=2).sum(axis=0)
    third, sixth = (56 + int((number + 0.5) / 15 * 360) for number in (4, 10))
    assert blue[sixth] > 2 * blue[third] > 0


def test_nothing_measured_is_no_number():
    assert np.isnan(measure_reliability(np.zeros(0), np.zeros(0, bool)).ece)
