from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import wsiseg.slide.base as base
from tests.slide.slides import Image, noise
from wsiseg.errors import GeometryError
from wsiseg.geometry import Box, Size
from wsiseg.slide import ArraySlide, Slide
from wsiseg.slide.base import composite_on_white
from wsiseg.slide.resample import area_mean, axis_weights


def brute_force(image: Image, box: Box, factor: float) -> NDArray[np.float64]:
    """Mean over each pixel's exact area, by a running integral in float64; white outside."""

    def matrix(first: int, count: int, size: int) -> NDArray[np.float64]:
        edges = np.arange(first, first + count + 1) * factor
        low, high = edges[:-1, None], edges[1:, None]
        at = np.arange(size)
        overlap = np.clip(np.minimum(high, at + 1) - np.maximum(low, at), 0, None)
        return np.asarray(overlap / factor)

    rows = matrix(box.y, box.height, image.shape[0])
    columns = matrix(box.x, box.width, image.shape[1])
    ink = np.einsum("ih,hwc,jw->ijc", rows, 255.0 - image, columns)
    return np.asarray(255.0 - ink)


factors = st.one_of(
    st.floats(0.3, 9.0, allow_nan=False), st.integers(1, 8).map(float), st.just(0.5 / 0.499)
)
boxes = st.builds(
    Box, st.integers(-5, 40), st.integers(-5, 40), st.integers(1, 40), st.integers(1, 40)
)


@settings(max_examples=60, deadline=None)
@given(factor=factors, box=boxes)
def test_read_is_the_exact_area_mean(factor: float, box: Box) -> None:
    image = noise(53, 61)
    slide = ArraySlide(image, 1.0 / 4)
    got = slide.read(box, factor / 4)
    want = brute_force(image, box, factor)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 0.5 + 1e-2


@settings(max_examples=60, deadline=None)
@given(factor=factors, box=boxes, cut=st.tuples(st.integers(0, 40), st.integers(0, 40)))
def test_box_whole_equals_box_in_parts(factor: float, box: Box, cut: tuple[int, int]) -> None:
    slide = ArraySlide(noise(53, 61), 0.25)
    across, down = min(cut[0], box.width), min(cut[1], box.height)
    whole = slide.read(box, factor * 0.25)
    parts = [
        Box(box.x + x, box.y + y, width, height)
        for x, width in ((0, across), (across, box.width - across))
        for y, height in ((0, down), (down, box.height - down))
    ]
    for part in parts:
        np.testing.assert_array_equal(slide.read(part, factor * 0.25), whole[part.slices(box)])


@pytest.mark.parametrize("box", [Box(3, 4, 20, 10), Box(-2, 20, 40, 20), Box(90, 0, 5, 5)])
def test_read_fills_what_it_is_given_and_nothing_beside_it(box: Box) -> None:
    slide = ArraySlide(noise(53, 61), 0.25)
    frame = np.full((box.height + 2, box.width + 2, 3), 7, np.uint8)
    out = frame[1:-1, 1:-1]
    assert slide.read(box, 0.5, out) is out
    np.testing.assert_array_equal(out, slide.read(box, 0.5))
    out[:] = 7
    assert (frame == 7).all()
    with pytest.raises(GeometryError, match=r"out has shape \(2, 3, 3\); give "):
        slide.read(box, 0.5, np.empty((2, 3, 3), np.uint8))


@pytest.mark.parametrize("mpp", [0.25, 0.5, 0.4, 0.75, 0.2])
@pytest.mark.parametrize("cut", [np.s_[1:-1, 1:-1, :3], np.s_[1:-1, -2:0:-1, 2::-1]])
def test_it_writes_into_any_array_and_beside_none_of_it(cut: tuple[slice, ...], mpp: float) -> None:
    slide, box = ArraySlide(noise(60, 60), 0.25), Box(2, 3, 9, 7)
    memory = np.full((9, 11, 4), 77, np.uint8)
    slide.read(box, mpp, memory[cut])
    np.testing.assert_array_equal(memory[cut], slide.read(box, mpp))
    memory[cut] = 77
    assert (memory == 77).all()


@pytest.mark.parametrize("factor", [2.0, 2.37])
def test_chunks_equal_one_read(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    slide = ArraySlide(noise(200, 90), 0.25)
    box = Box(1, 2, 35, 70)
    whole = slide.read(box, factor * 0.25)
    monkeypatch.setattr(base, "_CHUNK_WIDTH", 16)
    monkeypatch.setattr(base, "_CHUNK_PIXELS", 200)
    np.testing.assert_array_equal(slide.read(box, factor * 0.25), whole)


@pytest.mark.parametrize("factor", [2, 3, 4, 6, 7, 32])
def test_whole_factors_round_half_up_exactly(factor: int) -> None:
    image = noise(factor * 9, factor * 11, seed=factor)
    sums = image.reshape(9, factor, 11, factor, 3).sum((1, 3), dtype=np.int64)
    area = factor * factor
    want = (2 * sums + area) // (2 * area)
    got = ArraySlide(image, 0.1).read(Box(0, 0, 11, 9), factor * 0.1)
    np.testing.assert_array_equal(got, want)


def test_own_resolution_is_a_copy() -> None:
    image = noise(20, 30)
    got = ArraySlide(image, 0.25).read(Box(3, 4, 10, 11), 0.25)
    np.testing.assert_array_equal(got, image[4:15, 3:13])
    got[:] = 0
    assert image.any()


def test_axes_may_differ_in_mpp() -> None:
    image = noise(20, 60)
    slide = ArraySlide(image, 0.25)
    slide.mpp = slide.mpp._replace(y=slide.mpp.x * 2)
    assert slide.raster_size(0.5) == Size(30, 20)
    got = slide.read(Box(0, 0, 30, 20), 0.5)
    want = (image.reshape(20, 30, 2, 3).sum(2, dtype=np.int64) + 1) // 2
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("factor", [1.0, 2.0, 2.0005, 3.7, 0.7])
def test_constant_stays_constant(factor: float) -> None:
    slide = ArraySlide(np.full((64, 64, 3), 255, np.uint8), 0.25)
    assert (slide.read(Box(-3, -3, 200, 200), factor * 0.25) == 255).all()
    grey = ArraySlide(np.full((64, 64, 3), 77, np.uint8), 0.25)
    assert (grey.read(Box(0, 0, 10, 10), factor * 0.25) == 77).all()


def test_outside_is_white_and_edge_pixels_mix_with_white() -> None:
    slide = ArraySlide(np.zeros((5, 5, 3), np.uint8), 1.0)
    got = slide.read(Box(-1, -1, 5, 5), 2.0)[..., 0]
    assert (got[0] == 255).all()
    assert (got[:, 0] == 255).all()
    assert (got[1:3, 1:3] == 0).all()
    assert got[1, 3] == 128
    assert got[3, 3] == 191
    assert (got[4] == 255).all()
    assert (slide.read(Box(100, 100, 4, 4), 2.0) == 255).all()


def test_coarsest_level_that_serves_is_read() -> None:
    fine = np.full((40, 40, 3), 10, np.uint8)
    half, quarter = np.full((20, 20, 3), 20, np.uint8), np.full((10, 10, 3), 40, np.uint8)
    slide = ArraySlide(fine, 0.25, levels=(half, quarter))
    assert slide.level_sizes == (Size(40, 40), Size(20, 20), Size(10, 10))
    for mpp, value in (
        (0.1, 10),
        (0.25, 10),
        (0.49, 10),
        (0.5, 20),
        (0.496, 20),
        (0.9, 20),
        (1, 40),
    ):
        assert (slide.read(Box(0, 0, 4, 4), mpp) == value).all(), mpp
    assert (slide.read(Box(0, 0, 1, 1), 9.0) == 40).all()


def test_fractional_level_downsample_covers_the_slide_exactly() -> None:
    fine = np.repeat(np.repeat(noise(16, 16), 5, 0), 5, 1)
    level = np.repeat(np.repeat(noise(16, 16), 2, 0), 2, 1)
    slide = ArraySlide(fine, 0.25, levels=(level,))  # 80 / 32 = 2.5: no rounding of a whole number
    same = axis_weights(0, 32, 1.0)
    np.testing.assert_array_equal(
        slide.read(Box(0, 0, 32, 32), 0.625), area_mean(level, same, same)
    )


@settings(max_examples=100, deadline=None)
@given(width=st.integers(1, 10**6), mpp=st.floats(0.06, 9), factor=st.integers(1, 64))
def test_raster_size_survives_float_noise(width: int, mpp: float, factor: int) -> None:
    slide = ArraySlide(noise(1, 1), mpp)
    slide.size = Size(width, 7)
    assert slide.raster_size(mpp * factor) == Size(-(-width // factor), -(-7 // factor))


@pytest.mark.parametrize("mpp", [0, -1.0, float("nan"), float("inf")])
def test_impossible_mpp_is_refused(mpp: float) -> None:
    with pytest.raises(GeometryError, match="µm/px; give more than 0"):
        ArraySlide(noise(4, 4), 1.0).read(Box(0, 0, 1, 1), mpp)


def test_box_sides() -> None:
    slide = ArraySlide(noise(4, 4), 1.0)
    assert slide.read(Box(0, 0, 0, 3), 1.0).shape == (3, 0, 3)
    with pytest.raises(GeometryError, match="negative side"):
        slide.read(Box(0, 0, -1, 3), 1.0)


def test_array_slide_lays_alpha_on_white() -> None:
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0, 3] = 255
    rgba[0, 1] = (100, 200, 0, 51)
    got = ArraySlide(rgba, 1.0).read(Box(0, 0, 2, 2), 1.0)
    assert got[0, 0].tolist() == [0, 0, 0]
    assert got[0, 1].tolist() == [224, 244, 204]
    assert (got[1] == 255).all()
    assert composite_on_white(np.full((1, 1, 4), 255, np.uint8)).tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 2), np.uint8), np.zeros((2, 2, 3), np.float32), np.zeros((0, 2, 3), np.uint8)],
)
def test_array_slide_refuses_other_arrays(array: NDArray[np.uint8]) -> None:
    with pytest.raises(GeometryError, match=r"uint8 \(H, W, 3\)"):
        ArraySlide(array, 1.0)


def test_array_slide_keeps_the_promise() -> None:
    slide: Slide = ArraySlide(noise(4, 6), 0.5, name="mine", bounds=Box(1, 1, 2, 2))
    with slide as same:
        assert same.path == Path("mine")
    assert (slide.reader, slide.mpp, slide.mpp_source) == ("array", (0.5, 0.5), "override")
    assert slide.bounds == Box(1, 1, 2, 2)
    assert ArraySlide(noise(4, 6), 0.5).bounds == Box(0, 0, 6, 4)
    assert slide.identity == ArraySlide(noise(4, 6), 0.5).identity
    assert slide.identity != ArraySlide(noise(4, 6, seed=1), 0.5).identity
