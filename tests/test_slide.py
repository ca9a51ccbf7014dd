from __future__ import annotations

import hashlib
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import wsiseg.slide
import wsiseg.slide.base as base
from wsiseg.config import SlideConfig
from wsiseg.errors import GeometryError, MppError, SlideOpenError, SlideReadError
from wsiseg.geometry import Box, Size
from wsiseg.slide import ArraySlide, Slide, find_slides, is_slide, open_slide, resolve_mpp
from wsiseg.slide.base import composite_on_white
from wsiseg.slide.resample import area_mean, axis_weights

SLIDES = Path(__file__).resolve().parents[2] / "shared" / "data" / "slides"
CMU = "CMU-1-Small-Region.svs"
TCGA = "tcga-cr-7395-01a-01-ts1.svs"
HE2 = "lung_scc_HE2.svs"
READERS = ("direct", "openslide", "tiffslide")

Image = NDArray[np.uint8]


def data(name: str) -> Path:
    path = SLIDES / name
    if not path.is_file():
        pytest.skip(f"shared/data/slides/{name} is not beside the checkout")
    return path


def noise(height: int, width: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


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


def test_bounds_come_from_the_properties_if_all_four_are_there() -> None:
    given_all = {
        f"openslide.bounds-{key}": str(i) for i, key in enumerate(("x", "y", "width", "height"))
    }
    assert base._bounds(given_all, Size(9, 9)) == Box(0, 1, 2, 3)
    del given_all["openslide.bounds-y"]
    assert base._bounds(given_all, Size(9, 8)) == Box(0, 0, 9, 8)


# --- mpp


def test_mpp_takes_the_user_first_then_the_metadata() -> None:
    properties = {"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.26", "aperio.MPP": "0.3"}
    assert resolve_mpp(properties, 0.5) == ((0.5, 0.5), "override")
    assert resolve_mpp(properties) == ((0.25, 0.26), "openslide.mpp")
    assert resolve_mpp({"aperio.MPP": "0.3"}) == ((0.3, 0.3), "aperio.MPP")


def test_mpp_from_resolution_skips_placeholders() -> None:
    tags = {
        "tiff.ResolutionUnit": "CENTIMETER",
        "tiff.XResolution": "40000",
        "tiff.YResolution": "20000",
    }
    assert resolve_mpp(tags) == ((0.25, 0.5), "tiff.XResolution")
    inch = {"tiff.ResolutionUnit": "inch", "tiff.XResolution": "50800", "tiff.YResolution": "50800"}
    assert resolve_mpp(inch) == ((0.5, 0.5), "tiff.XResolution")
    with pytest.raises(MppError, match="does not say"):
        resolve_mpp(inch | {"tiff.XResolution": "72", "tiff.YResolution": "72"})
    with pytest.raises(MppError, match="does not say"):
        resolve_mpp(inch | {"tiff.ResolutionUnit": "none"})


def test_mpp_from_the_objective_warns() -> None:
    with pytest.warns(
        UserWarning, match=r"a\.svs.*0\.25 from the objective power 40.*--mpp-override"
    ):
        assert resolve_mpp({"openslide.objective-power": "40"}, name="a.svs")[0] == (0.25, 0.25)


def test_missing_mpp_says_what_to_do() -> None:
    with pytest.raises(MppError, match=r"^a\.svs: .*--mpp-override.*manifest's mpp column"):
        resolve_mpp({"aperio.MPP": "unknown"}, name="a.svs")


@pytest.mark.parametrize("value", ["0.01", "352.858", "nan", "-1"])
def test_absurd_mpp_names_value_and_limits(value: str) -> None:
    none = value in ("nan", "-1")  # no measurement at all
    said = r"does not say its µm/px" if none else rf"{value} x .*0\.05 to 10 µm/px"
    with pytest.raises(MppError, match=rf"{said}; .*--mpp-override"):
        resolve_mpp({"aperio.MPP": value})
    with pytest.raises(MppError, match=r"from override"):
        resolve_mpp({}, float(value))


# --- files


def test_find_slides(tmp_path: Path) -> None:
    names = ["b.SVS", "a.tiff", ".hidden.svs", "notes.txt", "m.mrxs", "m/Data0000.tif"]
    names += ["a.zarr/x.tif", ".cache/x.svs", "deep/er/c.ndpi"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link.svs").symlink_to(tmp_path / "notes.txt")
    (tmp_path / "gone.svs").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.svs").mkdir()
    flat = [tmp_path / name for name in ("a.tiff", "b.SVS", "link.svs", "m.mrxs")]
    assert find_slides(tmp_path) == flat
    assert find_slides(tmp_path, nested=True) == sorted([*flat, tmp_path / "deep/er/c.ndpi"])
    assert is_slide(tmp_path / "b.SVS")
    with pytest.raises(SlideOpenError, match=r"a\.tiff: is not a folder"):
        find_slides(tmp_path / "a.tiff")


@pytest.mark.parametrize("reader", ["auto", *READERS])
def test_missing_file_is_said(tmp_path: Path, reader: str) -> None:
    config = SlideConfig.model_validate({"reader": reader})
    with pytest.raises(SlideOpenError, match=r"no\.svs: no such file"):
        open_slide(tmp_path / "no.svs", config)
    with pytest.raises(SlideOpenError, match="is a folder"):
        open_slide(tmp_path, config)


def test_what_is_no_slide_says_what_each_reader_said(tmp_path: Path) -> None:
    path = tmp_path / "text.svs"
    path.write_text("not a slide")
    with pytest.raises(
        SlideOpenError, match=r"text\.svs: .*OpenSlide does not know.*tiffslide can"
    ):
        open_slide(path)


def write_tiff(path: Path, image: NDArray[np.generic], **options: object) -> Path:
    tifffile.imwrite(path, image, resolution=(20000, 20000), resolutionunit="CENTIMETER", **options)
    return path


def test_auto_falls_back_to_tiffslide(tmp_path: Path) -> None:
    image = noise(40, 50)
    path = write_tiff(tmp_path / "strips.tif", image, photometric="rgb")
    with open_slide(path) as slide:
        assert (slide.reader, slide.size) == ("tiffslide", Size(50, 40))
        assert slide.mpp == pytest.approx((0.5, 0.5))
        np.testing.assert_array_equal(slide.read(Box(0, 0, 50, 40), slide.mpp.x), image)


def test_what_the_reader_named_does_not_open_is_read_page_by_page(tmp_path: Path) -> None:
    image = noise(40, 50)
    path = write_tiff(tmp_path / "strips.tif", image, photometric="rgb")
    with pytest.raises(SlideOpenError, match="OpenSlide does not know"):
        wsiseg.slide.READERS["openslide"](path, SlideConfig())
    with open_slide(path, SlideConfig(reader="openslide")) as slide:
        assert (slide.reader, slide.vendor, slide.associated) == ("direct", "generic-tiff", {})
        assert slide.mpp == pytest.approx((0.5, 0.5))
        assert slide.mpp_source == "tiff.XResolution"
        np.testing.assert_array_equal(slide.read(Box(0, 0, 50, 40), slide.mpp.x), image)


# --- real slides


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


def test_unreadable_pixels_are_a_read_error() -> None:
    path = data("edge_cases/unreadable.svs")
    with (
        open_slide(path) as slide,
        pytest.raises(SlideReadError, match=r"unreadable\.svs: OpenSlide cannot read level 0, box"),
    ):
        slide.read(Box(0, 0, 4, 4), 0.499)
    with pytest.raises(SlideOpenError, match="tiffslide cannot decode it"):
        open_slide(path, SlideConfig(reader="tiffslide"))


@pytest.mark.parametrize("reader", READERS)
def test_truncated_slide_is_a_slide_error(tmp_path: Path, reader: str) -> None:
    source = data(CMU).read_bytes()
    path = tmp_path / "cut.svs"
    path.write_bytes(source[: len(source) // 2])
    with pytest.raises((SlideOpenError, SlideReadError), match=r"cut\.svs"):  # noqa: SIM117  # either step may notice
        with open_slide(path, SlideConfig.model_validate({"reader": reader})) as slide:
            slide.read(Box(0, 0, *slide.size), slide.mpp.x)


def test_identity_follows_the_content_not_the_name(tmp_path: Path) -> None:
    path = data(CMU)
    copy = tmp_path / "copy.svs"
    shutil.copy(path, copy)
    with open_slide(path) as one, open_slide(copy) as two:
        assert one.identity == two.identity
        assert len(one.identity) == len(hashlib.sha256().hexdigest())
    with copy.open("ab") as file:
        file.write(b"\0")
    with open_slide(path) as one, open_slide(copy) as two:
        assert one.identity != two.identity


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


def test_all_is_sorted_and_importable() -> None:
    names = wsiseg.slide.__all__
    assert all(hasattr(wsiseg.slide, name) for name in names)
