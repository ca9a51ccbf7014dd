from __future__ import annotations

import numpy as np
import pytest

from wsiseg.shrink import shrink_mean


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
