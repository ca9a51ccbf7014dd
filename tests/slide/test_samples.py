"""One rule for all readers: the same pixels, or the same refusal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.slide.pictures import IMAGE, MPP, PLANES, READ, READERS, REFUSED, write
from wsiseg.config import SlideConfig
from wsiseg.errors import SlideOpenError
from wsiseg.geometry import Box
from wsiseg.slide import open_slide
from wsiseg.slide.samples import Samples

WHOLE = Box(0, 0, IMAGE.shape[1], IMAGE.shape[0])
FORMS = {"tiled": True, "stripped": False}


def config(reader: str) -> SlideConfig:
    given = {"reader": reader, "mpp_override": MPP, "scaled_decode": False}
    return SlideConfig.model_validate(given)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", READ)
def test_every_reader_gives_the_same_pixels(tmp_path: Path, layout: str, form: str) -> None:
    content, want, error = READ[layout]
    path = write(tmp_path / "a.tif", content(), FORMS[form])
    first = None
    for reader in READERS:
        with open_slide(path, config(reader)) as slide:
            got = slide.read(WHOLE, MPP)
            assert np.abs(got - want.astype(float)).max() <= error + 1e-9, reader
            first = got if first is None else first
            np.testing.assert_array_equal(got, first, err_msg=reader)
            np.testing.assert_array_equal(
                slide.read(Box(41, 30, 70, 50), MPP), got[30:80, 41:111], err_msg=reader
            )
            half = slide.read(Box(0, 0, 75, 50), 2 * MPP)
            means = first.reshape(50, 2, 75, 2, 3).mean((1, 3))
            assert np.abs(half - means).max() <= 0.5, reader


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", REFUSED)
def test_every_reader_refuses_the_same(tmp_path: Path, layout: str, form: str) -> None:
    content, match = REFUSED[layout]
    path = write(tmp_path / "a.tif", content(), FORMS[form])
    said = set()
    for reader in READERS:
        with pytest.raises(SlideOpenError, match=rf"a\.tif: not read: .*{match}") as refusal:
            open_slide(path, config(reader))
        said.add(str(refusal.value))
    assert len(said) == 1
    assert "8-bit RGB" in said.pop(), "what to do"


def test_scaling_is_exact_and_clips() -> None:
    table = np.clip(np.rint((np.arange(2**16) - 100) / 765 * 255), 0, 255).astype(np.uint8)
    samples = np.array([[[0, 100, 103], [865, 866, 65535]]], np.uint16)
    got = Samples(table=table).to_rgb(samples)
    assert got.tolist() == [[[0, 0, 1], [255, 255, 255]]]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("tiled", [True, False])
def test_a_person_says_which_sample_is_white(tmp_path: Path, reader: str, tiled: bool) -> None:
    """Of deep samples only, and over what the file says."""
    deep = {"photometric": "rgb", "compression": "zlib"}
    tag = [(341, "H", 1, (9999,), True)]
    files = {
        "untold.tif": (IMAGE.astype(np.uint16) * 16, deep),
        "told.tif": (IMAGE.astype(np.uint16) * 16, deep | {"extratags": tag}),
        "shallow.tif": (IMAGE, deep),
    }
    config = SlideConfig.model_validate({"reader": reader, "white_level": 4080})
    for name, content in files.items():
        with open_slide(write(tmp_path / name, content, tiled), config) as slide:
            whole = Box(0, 0, *slide.size)
            np.testing.assert_array_equal(slide.read(whole, slide.mpp.x), IMAGE)
    with pytest.raises(SlideOpenError, match=r"--set slide\.white_level=4095"):
        open_slide(tmp_path / "untold.tif", SlideConfig.model_validate({"reader": reader}))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("axes", ["ZCYX", "CZYX", "TCYX"])
def test_planes_of_the_first_of_several_pictures(tmp_path: Path, reader: str, axes: str) -> None:
    names = {"axes": axes, "Channel": {"Name": ["Red", "Green", "Blue"]}}
    stack = np.stack([PLANES, 255 - PLANES], axes.index("C") == 0)
    content = stack, {"photometric": "minisblack", "metadata": names, "ome": True}
    path = write(tmp_path / "a.ome.tif", content, True)
    with open_slide(path, SlideConfig.model_validate({"reader": reader})) as slide:
        np.testing.assert_array_equal(slide.read(Box(0, 0, *slide.size), slide.mpp.x), IMAGE)
        said = "holds 2 pictures" if "T" in axes else "z-stack of 2 focal planes"
        assert [said in note for note in slide.notes] == [True]


@pytest.mark.parametrize("reader", READERS)
def test_of_several_pictures_it_is_said_that_the_first_is_read(tmp_path: Path, reader: str) -> None:
    content = np.stack([IMAGE, 255 - IMAGE]), {"photometric": "rgb"}
    path = write(tmp_path / "pages.tif", content, True)
    with open_slide(path, SlideConfig.model_validate({"reader": reader})) as slide:
        np.testing.assert_array_equal(slide.read(Box(0, 0, *slide.size), slide.mpp.x), IMAGE)
        assert slide.notes == ("holds 2 pictures of this size; the first is read",)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("turned", [2, 3, 6])
def test_orientation_is_not_applied_and_said(tmp_path: Path, reader: str, turned: int) -> None:
    """OpenSlide turns each tile by itself."""
    tag = [(274, "H", 1, (turned,), True)]
    content = IMAGE, {"photometric": "rgb", "compression": "zlib", "extratags": tag}
    path = write(tmp_path / "turned.tif", content, True)
    with open_slide(path, SlideConfig.model_validate({"reader": reader})) as slide:
        np.testing.assert_array_equal(slide.read(Box(0, 0, *slide.size), slide.mpp.x), IMAGE)
        assert f"orientation (TIFF tag 274: {turned}) is not applied" in slide.notes[0]
