"""What a file is before any reader opens it: left-out tiles, and aborted conversions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

import wsiseg.slide.page_level as page_level
from tests.slide.pictures import IMAGE, MPP, READERS, SCALE, TILE, write, write_tiles
from wsiseg.config import SlideConfig
from wsiseg.errors import SlideOpenError
from wsiseg.geometry import Box
from wsiseg.slide import open_slide
from wsiseg.slide.generic import GenericReader
from wsiseg.slide.layout import examine

WHOLE = Box(0, 0, IMAGE.shape[1], IMAGE.shape[0])
ABORTED = "convert the slide again"


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("left_out", [(0,), (1, 5), (0, 1, 2, 3, 4)])
def test_left_out_tiles_are_white(tmp_path: Path, reader: str, left_out: tuple[int, ...]) -> None:
    path = write_tiles(tmp_path / "sparse.tif", IMAGE, left_out)
    want = IMAGE.copy()
    for index in left_out:
        y, x = (place * TILE for place in divmod(index, 3))
        want[y : y + TILE, x : x + TILE] = 255
    with open_slide(path, SlideConfig.model_validate({"reader": reader})) as slide:
        np.testing.assert_array_equal(slide.read(WHOLE, slide.mpp.x), want)


@pytest.mark.parametrize("reader", READERS)
def test_left_out_tiles_of_deep_planes_are_white(tmp_path: Path, reader: str) -> None:
    deep = IMAGE.astype(np.uint16) * 257
    high = [(341, "H", 3, (65535,) * 3, True)]
    path = write_tiles(tmp_path / "deep.tif", deep, (2,), extratags=high)
    with open_slide(path, SlideConfig.model_validate({"reader": reader})) as slide:
        got = slide.read(WHOLE, slide.mpp.x)
    assert (got[:TILE, 2 * TILE :] == 255).all()
    np.testing.assert_array_equal(got[:, : 2 * TILE], IMAGE[:, : 2 * TILE])


@pytest.mark.parametrize("reader", READERS)
def test_a_level_0_without_a_tile_is_an_aborted_conversion(tmp_path: Path, reader: str) -> None:
    path = write_tiles(tmp_path / "none.tif", IMAGE, tuple(range(6)))
    config = SlideConfig.model_validate({"reader": reader})
    with pytest.raises(SlideOpenError, match=rf"none\.tif: .*level 0 .* its 6 tiles; .*{ABORTED}"):
        open_slide(path, config)


@pytest.mark.parametrize("reader", READERS)
def test_tiles_beyond_the_end_of_the_file_are_none(tmp_path: Path, reader: str) -> None:
    """A copy that stopped: the directory comes first, and none of the pixels after it."""
    path = write(tmp_path / "cut.tif", (IMAGE, {"photometric": "rgb"}), True)
    with tifffile.TiffFile(path) as file:
        start = min(file.pages.first.dataoffsets)
    path.write_bytes(path.read_bytes()[: start + 10])
    config = SlideConfig.model_validate({"reader": reader})
    with pytest.raises(SlideOpenError, match=rf"cut\.tif: .*none of its 6 tiles; .*{ABORTED}"):
        open_slide(path, config)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("alpha", ["unassalpha", "assocalpha"])
@pytest.mark.parametrize("planes", [False, True])
def test_a_wholly_transparent_level_0_is_an_aborted_conversion(
    tmp_path: Path, reader: str, alpha: str, planes: bool
) -> None:
    clear = np.dstack([IMAGE, np.zeros(IMAGE.shape[:2], np.uint8)])
    options = {"photometric": "rgb", "compression": "zlib", "extrasamples": [alpha]}
    if planes:
        options["planarconfig"] = "separate"
    config = SlideConfig.model_validate({"reader": reader})
    for name, seen in (("clear.tif", False), ("spot.tif", True)):
        clear[99, 149, 3] = seen
        array = np.ascontiguousarray(clear.transpose(2, 0, 1)) if planes else clear
        path = write(tmp_path / name, (array, options), True)
        if seen:
            open_slide(path, config).close()
        else:
            with pytest.raises(SlideOpenError, match=rf"wholly transparent; .*{ABORTED}"):
                open_slide(path, config)


def test_what_is_no_tiff_is_left_to_the_readers(tmp_path: Path) -> None:
    for name, content in (("text.svs", b"not a slide"), ("broken.tif", b"II*\0" + bytes(60))):
        (tmp_path / name).write_bytes(content)
        assert examine(tmp_path / name) is None
    with pytest.raises(SlideOpenError, match=r"gone\.tif: cannot be read"):
        examine(tmp_path / "gone.tif")


def test_a_file_that_changes_is_looked_at_again(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write(path, (IMAGE[..., 0], {}), True)
    with pytest.raises(SlideOpenError, match="1 channel"):
        examine(path)
    path.unlink()
    write(path, (IMAGE, {"photometric": "rgb"}), True)
    found = examine(path)
    assert found is not None
    assert found.native
    assert found.generic


@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
def test_one_strip_is_cut_as_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int, order: str, planes: bool
) -> None:
    """A whole slide may be one strip; of what is not compressed any rows can be read."""
    monkeypatch.setattr(page_level, "_RAW_PIXELS", 7 * IMAGE.shape[1])
    array = IMAGE if bits == 8 else IMAGE.astype(np.uint16) * 257
    options = {"photometric": "rgb", "extratags": [(341, "H", 1, 2**bits - 1, True)]}
    if planes:
        array, options["planarconfig"] = np.ascontiguousarray(array.transpose(2, 0, 1)), "separate"
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, byteorder=order, rowsperstrip=100, **options, **SCALE)
    with open_slide(path, SlideConfig(reader="direct")) as slide:
        assert isinstance(slide, GenericReader)
        assert slide._levels[0].tile == (150, 7)
        np.testing.assert_array_equal(slide.read(WHOLE, MPP), IMAGE)
        np.testing.assert_array_equal(slide.read(Box(9, 10, 60, 33), MPP), IMAGE[10:43, 9:69])


def test_a_compressed_strip_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_level, "_MAX_PIXELS", 31 * 150)
    path = write(tmp_path / "a.tif", (IMAGE, {"photometric": "rgb", "compression": "zlib"}), False)
    with pytest.raises(SlideOpenError, match=r"a\.tif: .*150 x 32 pixels are too large.*tiles"):
        open_slide(path, SlideConfig(reader="direct"))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("planes", [False, True])
def test_levels_of_what_no_library_reads(tmp_path: Path, reader: str, planes: bool) -> None:
    """A pyramid of 16 bits, its levels as pages: each is read as its own pixels."""
    path = tmp_path / "pyramid.tif"
    high = [(341, "H", 3, (65535,) * 3, True)]
    options = {"photometric": "rgb", "extratags": high, "tile": (TILE, TILE), **SCALE}
    if planes:
        options["planarconfig"] = "separate"
    levels = [IMAGE, 255 - IMAGE[::2, ::2]]
    with tifffile.TiffWriter(path) as file:
        for i, level in enumerate(levels):
            deep = level.astype(np.uint16) * 257
            array = np.ascontiguousarray(deep.transpose(2, 0, 1)) if planes else deep
            file.write(array, subfiletype=i and 1, metadata=None, **options)
    with open_slide(path, SlideConfig.model_validate({"reader": reader})) as slide:
        assert slide.level_sizes == ((150, 100), (75, 50))
        for i, level in enumerate(levels):
            got = slide.read(Box(0, 0, level.shape[1], level.shape[0]), MPP * 2**i)
            np.testing.assert_array_equal(got, level)
