"""A rounded level is not a scale; what lies beside its last pixel comes from a finer one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsiseg.config import SlideConfig
from wsiseg.geometry import Box, Size
from wsiseg.slide import ArraySlide, open_slide
from wsiseg.slide.levels import covers, find_downsample

Image = NDArray[np.uint8]
ROUND = {
    "floor": lambda length, n: length // n,
    "round": lambda length, n: (length + n // 2) // n,
    "ceil": lambda length, n: -(-length // n),
}


def smooth(height: int, width: int) -> Image:
    """Waves of some 100 pixels, so that a shift of a hundredth of a pixel shows."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 15 + i) + np.cos(y / (15 + i)) for i in range(3)]
    return np.asarray(np.stack(waves, 2) * 60 + 127, np.uint8)


def means(image: Image, n: int, size: Size) -> Image:
    """Means of ``n x n`` pixels as `size` level pixels; the last repeat the slide's edge."""
    pad = [
        (0, max(0, side * n - length))
        for side, length in zip(size[::-1], image.shape[:2], strict=True)
    ]
    whole = np.pad(image, [*pad, (0, 0)], mode="edge")[: size.height * n, : size.width * n]
    parts = whole.reshape(size.height, n, size.width, n, 3)
    return np.asarray((2 * parts.sum((1, 3), dtype=np.int64) + n * n) // (2 * n * n), np.uint8)


@given(
    width=st.integers(200, 10**6), height=st.integers(200, 10**6),
    n=st.sampled_from([1, 2, 3, 4, 5, 8, 10, 16, 32, 64]), how=st.sampled_from(sorted(ROUND)),
)  # fmt: skip
def test_the_whole_number_is_found_again(width: int, height: int, n: int, how: str) -> None:
    level = Size(ROUND[how](width, n), ROUND[how](height, n))
    if max(level) > 2 * n:  # else several whole numbers give this size
        assert find_downsample(Size(width, height), level) == (n, n)


@given(width=st.integers(1, 90), height=st.integers(1, 90), data=st.data())
def test_it_is_one_of_those_that_fit_and_a_ratio_only_if_none_does(
    width: int, height: int, data: st.DataObject
) -> None:
    level = Size(data.draw(st.integers(1, width)), data.draw(st.integers(1, height)))
    fits = [
        (n, n)
        for n in range(1, max(width, height) + 1)
        if width // n <= level.width <= -(-width // n)
        and height // n <= level.height <= -(-height // n)
    ]
    found = find_downsample(Size(width, height), level)
    assert found in fits if fits else found == (width / level.width, height / level.height)


@pytest.mark.parametrize(
    ("size", "level", "n"),
    [
        ((4443, 3567), (2221, 1783), 2),  # TCGA
        ((23241, 21754), (5811, 5439), 4),  # Aperio, rounded up
        ((23241, 21754), (1453, 1360), 16),
        ((39, 39), (10, 10), 4),
        ((50000, 40000), (195, 156), 256),  # 255 and 257 would fit as well
        ((12800, 6400), (100, 50), 128),
        ((12000, 6000), (100, 50), 120),  # divides
        ((4443, 1), (2221, 1), 2),
        ((3, 3), (1, 1), 3),
        ((100, 100), (100, 100), 1),
        ((131072, 120000), (1, 1), 131072),
        ((7, 7), (2, 2), 4),
    ],
)
def test_sizes_that_are_rounded(size: tuple[int, int], level: tuple[int, int], n: int) -> None:
    assert find_downsample(Size(*size), Size(*level)) == (n, n)


def test_sizes_that_no_rounding_explains_keep_their_ratios() -> None:
    assert find_downsample(Size(1000, 700), Size(400, 280)) == (2.5, 2.5)
    assert find_downsample(Size(1000, 1000), Size(500, 490)) == (2.0, 1000 / 490)
    assert find_downsample(Size(4443, 3567), Size(2220, 1782)) == (4443 / 2220, 3567 / 1782)


def test_a_level_covers_what_it_divides() -> None:
    assert covers(Size(40, 20), Size(10, 5), (4.0, 4.0))
    assert not covers(Size(39, 20), Size(10, 5), (4.0, 4.0))
    assert covers(Size(1000, 700), Size(400, 281), (1000 / 400, 700 / 281))


@pytest.mark.parametrize("how", sorted(ROUND))
@pytest.mark.parametrize("n", [2, 4, 8])
@pytest.mark.parametrize("factor", [1, 2, 1.3])
def test_levels_give_what_level_0_gives_to_the_far_edge(how: str, n: int, factor: float) -> None:
    image = smooth(331, 407)
    size = Size(ROUND[how](407, n), ROUND[how](331, n))
    levels = ArraySlide(image, 0.25, levels=(means(image, n, size),))
    alone = ArraySlide(image, 0.25)
    box = Box(-2, -2, *(side + 5 for side in alone.raster_size(0.25 * n * factor)))
    one, two = (slide.read(box, 0.25 * n * factor).astype(int) for slide in (levels, alone))
    if factor == 1.3:  # pixels of the level are mixed: blurred, but in place
        assert abs((one - two).mean()) < 0.3
        assert np.abs(one - two).mean() < 4
    else:
        assert np.abs(one - two).max() <= 1


@pytest.mark.parametrize("n", [2, 4, 16])
def test_parts_equal_the_whole_where_a_level_ends_early(n: int) -> None:
    image = smooth(331, 407)
    slide = ArraySlide(image, 0.25, levels=(means(image, n, Size(407 // n, 331 // n)),))
    for factor in (1, 1.5, 2):
        whole = Box(0, 0, *slide.raster_size(0.25 * n * factor))
        want = slide.read(whole, 0.25 * n * factor)
        cut = Box(whole.width // 2, whole.height // 3, whole.width, whole.height)
        got = slide.read(cut, 0.25 * n * factor)
        part = cut.intersect(whole)
        np.testing.assert_array_equal(got[part.slices(cut)], want[part.slices()])


@pytest.mark.parametrize("reader", ["direct", "openslide"])
def test_a_picture_of_another_shape_is_no_level(tmp_path: Path, reader: str) -> None:
    """A label that somebody flagged as a reduced picture: OpenSlide takes it for a level."""
    image, label = smooth(300, 450), np.zeros((150, 150, 3), np.uint8)
    path = tmp_path / "label.tif"
    with tifffile.TiffWriter(path) as tiff:
        for level, pixels in enumerate((image, label)):
            tiff.write(
                pixels, tile=(64, 64), photometric="rgb", compression="jpeg", metadata=None,
                subfiletype=int(level > 0), resolution=(20000, 20000), resolutionunit="CENTIMETER",
            )  # fmt: skip
    with open_slide(path, SlideConfig.model_validate({"reader": reader})) as slide:
        assert slide.read(Box(0, 0, 100, 60), 2.0).mean() == pytest.approx(
            image[:240, :400].mean(), abs=3
        )
        assert slide.notes == ("level 1, 150 x 150 px, is no smaller slide, and not read",)


@pytest.mark.parametrize("reader", ["direct", "openslide", "tiffslide"])
def test_every_reader_takes_the_whole_number(tmp_path: Path, reader: str) -> None:
    """A generic TIFF of two levels, the second rounded down: the far edge is in its place."""
    image = smooth(399, 999)
    path = tmp_path / "two.tif"
    with tifffile.TiffWriter(path) as tiff:
        for level, pixels in enumerate((image, means(image, 2, Size(499, 199)))):
            tiff.write(
                pixels, tile=(64, 64), photometric="rgb", compression="jpeg", metadata=None,
                compressionargs={"level": 95}, subfiletype=int(level > 0),
                resolution=(40000 / (1, 2)[level],) * 2, resolutionunit="CENTIMETER",
            )  # fmt: skip
    with open_slide(path, SlideConfig.model_validate({"reader": reader})) as slide:
        assert slide.level_sizes == (Size(999, 399), Size(499, 199))
        box = Box(290, 90, 200, 100)
        from_level = slide.read(box, 0.5).astype(float).mean(2)
        slide.level_sizes = slide.level_sizes[:1]
        from_full = slide.read(box, 0.5).astype(float).mean(2)
    slopes = np.stack([axis.ravel() for axis in np.gradient(from_full)], axis=1)
    shift = np.linalg.lstsq(slopes, (from_level - from_full).ravel(), rcond=None)[0]
    # OpenSlide takes corners in level-0 pixels: its level lies up to half of one beside its place.
    assert np.abs(shift).max() < (0.26 if reader == "openslide" else 0.03)
