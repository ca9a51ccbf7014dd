from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

import wsiseg.tissue.glass as glass
from wsiseg.tissue.glass import find_glass


def plain_glass(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The colour of glass, every step on the whole image at once."""
    image = ndimage.uniform_filter(image, (3, 3, 1))
    darkest, brightest = image.min(2), image.max(2)
    range_ = ndimage.maximum_filter(darkest, 3) - ndimage.minimum_filter(darkest, 3)
    pink = np.minimum(image[..., 0], image[..., 2]).astype(np.int16) - image[..., 1]
    glassy = (darkest >= glass._MIN_BRIGHTNESS) & (darkest < glass._WHITE)
    glassy &= (brightest - darkest <= glass._MAX_TINT) & (pink <= glass._MAX_PINK)
    glassy &= range_ <= glass._MAX_RANGE
    counts = np.bincount(darkest[glassy], minlength=256)
    mode = int(np.convolve(counts, [1, 1, 1], "same").argmax())
    near = glassy & (np.abs(darkest.astype(np.int16) - mode) <= 3)
    if near.mean() < glass._MIN_SHARE:
        return np.full(3, 255.0)
    return np.asarray(np.median(image[near], axis=0))


@settings(deadline=None)  # the first example compiles
@given(
    seed=st.integers(0, 2**32),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    colour=st.tuples(*[st.integers(184, 255)] * 3),
    noise=st.sampled_from([0, 1, 2, 5, 60]),
)
def test_line_by_line_it_is_that_of_the_whole(
    seed: int, shape: tuple[int, int], colour: tuple[int, int, int], noise: int
) -> None:
    grain = np.random.default_rng(seed).integers(-noise, noise + 1, (*shape, 3))
    image = np.clip(np.array(colour) + grain, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(find_glass(image), plain_glass(image))


@pytest.mark.parametrize("colour", [(243, 240, 242), (196, 191, 193)])
def test_glass_is_found_beside_tissue_and_what_was_never_scanned(
    colour: tuple[int, int, int],
) -> None:
    image = np.full((60, 90, 3), 255, np.uint8)
    image[:, :50] = (180, 90, 150)
    image[20:, 40:70] = colour
    assert find_glass(image).tolist() == list(colour)
    assert find_glass(image[:20]).tolist() == [255, 255, 255]
