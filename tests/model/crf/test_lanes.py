from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from wsiseg.model.crf.lanes import (
    LANES,
    add_scaled,
    exp,
    highest,
    load,
    scaled,
    store,
    sum_of,
    times,
)


@njit
def run_exp(source, less, target):
    for at in range(0, len(source), LANES):
        store(target, at, exp(load(source, at), less))


@njit
def run_all(a, b, factor, target):
    store(target, 0, add_scaled(load(a, 0), factor, load(b, 0)))
    store(target, LANES, scaled(factor, load(a, 0)))
    store(target, 2 * LANES, times(load(a, 0), load(b, 0)))
    return sum_of(load(a, 0)), highest(load(b, 0))


def test_exp_is_exp_to_float32s_precision():
    numbers = np.linspace(-38, 3, 4096).astype(np.float32)
    found = np.empty_like(numbers)
    run_exp(numbers, np.float32(3), found)
    exact = np.exp(numbers.astype(np.float64) - 3)
    assert np.abs(found / exact - 1).max() < 5e-6
    assert found[-1] == 1


def test_exp_stays_away_from_denormals():
    found = np.empty(8, np.float32)
    run_exp(np.array([-1e3, -1e30, -50, -42, -43, 0, 0, 0], np.float32), np.float32(0), found)
    assert found[:5].min() == pytest.approx(2.0**-60)
    assert found[:5].max() < 1e-17


def test_arithmetic_is_lane_by_lane():
    random = np.random.default_rng(0)
    a, b = random.standard_normal((2, LANES)).astype(np.float32)
    found = np.empty(3 * LANES, np.float32)
    total, top = run_all(a, b, np.float32(0.3), found)
    expected = np.concatenate([a + np.float32(0.3) * b, np.float32(0.3) * a, a * b])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    assert total == pytest.approx(a.sum(), rel=1e-5)
    assert top == b.max()
