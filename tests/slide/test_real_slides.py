from __future__ import annotations

import threading

import numpy as np
import pytest

from tests.slide.slides import CMU, HE2, READERS, TCGA, data
from wsiseg.config import SlideConfig
from wsiseg.errors import MppError, SlideOpenError
from wsiseg.geometry import Box, Size
from wsiseg.slide import open_slide


@pytest.mark.parametrize("reader", READERS)
def test_cmu(reader: str) -> None:
    config = SlideConfig.model_validate({"reader": reader})
    with open_slide(data(CMU), config) as slide:
        assert (slide.reader, slide.vendor, slide.size) == (reader, "aperio", Size(2220, 2967))
        assert (slide.mpp, slide.mpp_source) == ((0.499, 0.499), "openslide.mpp")
        assert slide.bounds == Box(0, 0, 2220, 2967)
        assert slide.raster_size(0.5) == Size(2216, 2962)
        assert slide.raster_size(8.0) == Size(139, 186)
        assert sorted(slide.associated) == ["label", "macro", "thumbnail"]
        label = slide.associated["label"]
        assert (label.dtype, label.shape) == (np.uint8, (463, 387, 3))
        with pytest.raises(KeyError):
            slide.associated["none"]


@pytest.mark.parametrize("name", [CMU, TCGA, HE2])
@pytest.mark.parametrize("reader", ["direct", "tiffslide"])
def test_readers_agree(name: str, reader: str) -> None:
    path = data(name)
    config = {} if name != TCGA else {"mpp_override": 0.5}
    first, second = (
        open_slide(path, SlideConfig.model_validate({"reader": each, **config}))
        for each in ("openslide", reader)
    )
    with first, second:
        assert (first.size, first.identity) == (second.size, second.identity)
        assert first.mpp == pytest.approx(second.mpp, abs=1e-9)
        centre = Box(first.size.width // 3, first.size.height // 3, 300, 200)
        one, two = (slide.read(centre, slide.mpp.x) for slide in (first, second))
        # Both are exact to the decoder; JPEG decoders differ by rounding.
        assert np.abs(one.astype(int) - two).max() <= 3


def test_parts_equal_whole_on_a_level_of_fractional_downsample() -> None:
    with open_slide(data(TCGA), SlideConfig(mpp_override=0.5)) as slide:
        box = Box(450, 400, 300, 250)
        for mpp in (1.0, 1.3):
            whole = slide.read(box, mpp)
            part = Box(523, 477, 150, 120)
            np.testing.assert_array_equal(slide.read(part, mpp), whole[part.slices(box)])


@pytest.mark.parametrize(
    ("name", "factor", "box"),
    [(TCGA, 2, Box(1892, 892, 300, 300)), (HE2, 4, Box(2905, 2719, 400, 300))],
)
def test_levels_show_the_same_place(name: str, factor: int, box: Box) -> None:
    with open_slide(data(name), SlideConfig(mpp_override=0.25)) as slide:
        from_level = slide.read(box, 0.25 * factor).astype(float).mean(2)
        slide.level_sizes = slide.level_sizes[:1]
        from_full = slide.read(box, 0.25 * factor).astype(float).mean(2)
    slopes = np.stack([axis.ravel() for axis in np.gradient(from_full)], axis=1)
    shift = np.linalg.lstsq(slopes, (from_level - from_full).ravel(), rcond=None)[0]
    assert from_full.std() > 10
    assert np.abs(shift).max() < 0.03, "in pixels of the level; it was up to 0.41"


def test_white_beyond_a_real_slide() -> None:
    with open_slide(data(CMU)) as slide:
        got = slide.read(Box(2100, 2900, 200, 200), slide.mpp.x)
    assert (got[67:] == 255).all()
    assert (got[:, 120:] == 255).all()
    assert (got[:67, :120] < 255).any()


@pytest.mark.parametrize("reader", READERS)
def test_slide_without_mpp(reader: str) -> None:
    path = data(TCGA)
    with pytest.raises(MppError, match=r"tcga-cr.*does not say its µm/px; .*--mpp-override"):
        open_slide(path, SlideConfig.model_validate({"reader": reader}))
    config = SlideConfig.model_validate({"reader": reader, "mpp_override": 0.5})
    with open_slide(path, config) as slide:
        assert (slide.mpp, slide.mpp_source) == ((0.5, 0.5), "override")


def test_edge_cases() -> None:
    with pytest.raises(MppError, match=r"boxes\.tiff: 352\.858 .*outside"):
        open_slide(data("edge_cases/boxes.tiff"))
    with pytest.raises(SlideOpenError, match=r"unopenable\.tiff.*compression: 52479.*tiffslide"):
        open_slide(data("edge_cases/unopenable.tiff"), SlideConfig(mpp_override=0.5))
    with pytest.raises(SlideOpenError, match=r"broken_histolab\.svs.*not a TIFF"):
        open_slide(data("edge_cases/broken_histolab.svs"))
    with open_slide(data("edge_cases/small_synthetic.svs")) as slide:
        assert slide.read(Box(-4, -4, 24, 24), 0.499).shape == (24, 24, 3)


@pytest.mark.parametrize("reader", READERS)
def test_threads_read_the_same(reader: str) -> None:
    with open_slide(data(CMU), SlideConfig.model_validate({"reader": reader})) as slide:
        box = Box(200, 200, 400, 300)
        want, got = slide.read(box, 0.7), {}
        work = [
            threading.Thread(target=lambda i=i: got.update({i: slide.read(box, 0.7)}))
            for i in range(4)
        ]
        [thread.start() for thread in work]
        [thread.join() for thread in work]
        assert all(np.array_equal(got[i], want) for i in range(4))
