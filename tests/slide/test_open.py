from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

import wsiseg.slide
import wsiseg.slide.base as base
from tests.slide.slides import CMU, READERS, data, noise
from wsiseg.config import SlideConfig
from wsiseg.errors import SlideOpenError, SlideReadError
from wsiseg.geometry import Box, Size
from wsiseg.slide import find_slides, is_slide, open_slide


def test_bounds_come_from_the_properties_if_all_four_are_there() -> None:
    given_all = {
        f"openslide.bounds-{key}": str(i) for i, key in enumerate(("x", "y", "width", "height"))
    }
    assert base._bounds(given_all, Size(9, 9)) == Box(0, 1, 2, 3)
    del given_all["openslide.bounds-y"]
    assert base._bounds(given_all, Size(9, 8)) == Box(0, 0, 9, 8)


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


def test_slides_that_no_reader_opens_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.vsi", "b.VSI", "deep/c.isyntax", "deep/d.lif", "e.txt", ".f.vsi"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_slides(tmp_path, nested=True) == []
    assert "4 slide(s) left out: a.vsi, b.VSI, c.isyntax, ...; no reader opens" in caplog.text
    assert ".isyntax, .lif, .vsi; convert them" in caplog.text


@pytest.mark.parametrize("suffix", [".btf", ".qptiff", ".tf2", ".tf8"])
def test_whichever_tiff_is_read_is_found_as_well(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"s{suffix}"
    tifffile.imwrite(path, noise(64, 64), photometric="rgb", tile=(32, 32), bigtiff=True,
                     resolution=(20000, 20000), resolutionunit="CENTIMETER")  # fmt: skip
    assert find_slides(tmp_path) == [path]
    with open_slide(path) as slide:
        assert slide.size == Size(64, 64)


def test_files_without_access_are_found_if_broken_ones_are_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that may be listed and not entered."""
    (tmp_path / "s.svs").touch()
    monkeypatch.setattr(os.path, "isfile", lambda path: False)
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    assert find_slides(tmp_path, broken=True) == [tmp_path / "s.svs"]


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


def test_all_is_sorted_and_importable() -> None:
    names = wsiseg.slide.__all__
    assert all(hasattr(wsiseg.slide, name) for name in names)
