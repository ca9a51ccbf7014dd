import numpy as np
import pytest
from scipy import stats

from tests.evaluate.test_report import PALETTE
from wsiseg.config import EvaluateConfig
from wsiseg.errors import DataError
from wsiseg.evaluate import Evaluation, bootstrap_intervals, compare_pair, score

CONFIG = EvaluateConfig(resamples=2000, seed=3)


def method(right, names=None, total=1000):
    """Two classes; of each image's 1000 pixels a class, so many are right."""
    confusions = np.zeros((len(right), 5, 5), np.int64)
    for label in range(2):
        confusions[:, label, label] = right
        confusions[:, label, 1 - label] = total - np.asarray(right)
    shown = np.zeros((len(right), 4), bool)
    return Evaluation(
        protocol="deploy", palette=PALETTE,
        names=names or tuple(f"{n}.png" for n in range(len(right))), confusions=confusions,
        true_classes=shown, gates=shown, scores=score(confusions.sum(0)),
        intervals=bootstrap_intervals(confusions, resamples=5), config=CONFIG,
    )  # fmt: skip


def test_images_that_are_hard_for_both_do_not_count():
    random = np.random.default_rng(0)
    base = random.integers(200, 800, 60)
    first, second = method(base + 20 + random.integers(-9, 9, 60)), method(base)
    found = compare_pair(first, second)
    assert found.value == pytest.approx(first.scores.miou - second.scores.miou)
    assert 0 < found.low < found.value < found.high
    assert found.p == pytest.approx(2 / 2001)
    apart = bootstrap_intervals(first.confusions).miou
    assert found.high - found.low < (apart[1] - apart[0]) / 5


def test_p_is_near_that_of_a_test_on_the_differences():
    random = np.random.default_rng(1)
    base = random.integers(450, 550, 80)
    change = random.normal(6, 30, 80).astype(int)
    found = compare_pair(method(base + change), method(base))
    assert found.p == pytest.approx(stats.ttest_1samp(change, 0).pvalue, rel=0.4, abs=0.02)


def test_the_same_is_no_difference():
    found = compare_pair(method([500, 600]), method([500, 600]))
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_other_images_are_refused():
    with pytest.raises(DataError, match="same images"):
        compare_pair(method([500]), method([500], names=("other.png",)))
