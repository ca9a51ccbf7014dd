import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsiseg.errors import DataError
from wsiseg.evaluate import bootstrap_intervals, score


def random_confusions(count: int, classes: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 50, (count, classes + 1, classes + 1))


def naive(confusions: np.ndarray, resamples: int, seed: int, of) -> tuple[float, float]:
    """Every draw scored on its own, from the same random numbers."""
    count = len(confusions)
    times = np.random.default_rng(seed).multinomial(
        count, np.full(count, 1 / count), size=resamples
    )
    values = [of(score(sum(n * c for n, c in zip(row, confusions, strict=True)))) for row in times]
    known = [value for value in values if not math.isnan(value)]
    return tuple(np.quantile(known, [0.025, 0.975]))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 6), st.integers(0, 99))
def test_agrees_with_scoring_every_draw(count, seed):
    confusions = random_confusions(count, seed=seed)
    confusions[:, 1] = 0  # class 1 is never true,
    confusions[1:, :, 1] = 0  # and found in the first image only: absent from some draws
    found = bootstrap_intervals(confusions, resamples=40, seed=seed)
    for name in ("miou", "mdice", "fwiou"):
        want = naive(confusions, 40, seed, lambda scores, name=name: getattr(scores, name))
        assert getattr(found, name) == pytest.approx(want)
    for label in range(3):
        want = naive(confusions, 40, seed, lambda scores, label=label: scores.iou[label])
        assert found.iou[label] == pytest.approx(want)
    assert (found.level, found.resamples, found.seed) == (0.95, 40, seed)


def test_many_draws_in_parts_are_the_same_draws():
    confusions = random_confusions(5)
    found = bootstrap_intervals(confusions, resamples=600)
    assert found.miou == pytest.approx(naive(confusions, 600, 0, lambda scores: scores.miou))


def test_patches_of_a_case_are_drawn_together():
    """Ten copies of each of four patches know no more than the four."""
    few = random_confusions(4, seed=1)
    cases = [f"case {number % 4}" for number in range(40)]
    want = bootstrap_intervals(10 * few, resamples=200)
    got = bootstrap_intervals(np.tile(few, (10, 1, 1)), resamples=200, cases=cases)
    assert (got.miou, got.iou) == (want.miou, want.iou)
    assert (got.units, got.over_cases, want.over_cases) == (4, True, False)
    by_patch = bootstrap_intervals(np.tile(few, (10, 1, 1)), resamples=200)
    assert np.ptp(by_patch.miou) < 0.6 * np.ptp(got.miou), "too sure of itself"


def test_images_alike_leave_no_doubt():
    confusions = np.repeat(random_confusions(1), 4, axis=0)
    low, high = bootstrap_intervals(confusions, resamples=20).miou
    assert low == pytest.approx(high)
    assert low == pytest.approx(score(confusions[0]).miou)


def test_seeds_repeat_and_levels_nest():
    confusions = random_confusions(9, seed=3)
    again = [bootstrap_intervals(confusions, resamples=200, seed=7) for _ in range(2)]
    assert again[0] == again[1]
    narrow = bootstrap_intervals(confusions, resamples=200, seed=7, level=0.5)
    assert again[0].fwiou[0] <= narrow.fwiou[0] <= narrow.fwiou[1] <= again[0].fwiou[1]


def test_a_class_that_is_nowhere_has_no_interval():
    confusions = random_confusions(3)
    confusions[:, 2] = confusions[:, :, 2] = 0
    found = bootstrap_intervals(confusions, resamples=10)
    assert all(map(math.isnan, found.iou[2] + found.dice[2]))
    assert not math.isnan(found.miou[0])


def test_no_image():
    with pytest.raises(DataError, match="no image to draw from"):
        bootstrap_intervals(np.zeros((0, 3, 3), np.int64))
