from __future__ import annotations

import numpy as np
import pytest

from wsiseg import compiling
from wsiseg.shrink import FACTORS, mean_squares, shrink_mean
from wsiseg.slide.resample import area_mean, axis_weights


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize(
    "shape", [(8, 12, 3), (9, 13, 3), (1, 1, 3), (3, 30, 3), (40, 2, 3), (16, 7, 3)]
)
def test_the_mean_of_what_is_there_rounded_half_up(shape: tuple[int, ...], factor: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    got = shrink_mean(pixels, factor)
    assert got.shape == (-(-shape[0] // factor), -(-shape[1] // factor), shape[2])
    for y, x in np.ndindex(*got.shape[:2]):
        square = pixels[y * factor : (y + 1) * factor, x * factor : (x + 1) * factor]
        wanted = np.floor(square.mean(axis=(0, 1), dtype=np.float64) + 0.5)
        np.testing.assert_array_equal(got[y, x], wanted)


def test_white_stays_white_and_views_are_fine() -> None:
    white = np.full((20, 20, 3), 255, np.uint8)
    assert (shrink_mean(white, 4) == 255).all()
    pixels = np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(
        shrink_mean(pixels[3:27, 2:26], 4), shrink_mean(pixels[3:27, 2:26].copy(), 4)
    )


@pytest.fixture(params=["plain", "compiled"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(compiling._Work, "loaded", request.param == "compiled")
    monkeypatch.setattr(compiling._Work, "values", 0)
    return str(request.param)


WHOLE: dict[tuple[float, ...], bytes] = {}


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    "factors", [(2, 2), (16, 16), (3, 3), (16.03, 16.03), (1.901, 1.901), (2.5, 4.2), (0.7, 0.7)]
)
def test_compiled_code_and_numpy_give_the_same_bytes(factors: tuple[float, float]) -> None:
    down, across = (axis_weights(5, max(3, int(180 / factor)), factor) for factor in factors)
    size = down.stop - down.first, across.stop - across.first, 3
    pixels = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    means = area_mean(pixels, down, across).tobytes()
    assert WHOLE.setdefault(factors, means) == means
    if factors[0] in FACTORS:
        assert mean_squares(pixels, int(factors[0])).tobytes() == means


def test_compiled_code_is_loaded_once_there_is_work_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling._Work, "loaded", False)
    monkeypatch.setattr(compiling._Work, "values", 0)
    assert not compiling.pays(compiling._BREAK_EVEN)
    assert compiling.pays(1)
