"""A tile that cannot be decoded: the slide fails, or the tile is glass and is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.slide.damaged import spoil
from tests.slide.pictures import IMAGE, MPP, READERS, TILE, write, write_tiles
from wsiseg.config import SlideConfig
from wsiseg.errors import SlideError, SlideOpenError, SlideReadError
from wsiseg.geometry import Box, Size
from wsiseg.slide import open_slide
from wsiseg.slide.damage import place_tile

WHOLE = Box(0, 0, IMAGE.shape[1], IMAGE.shape[0])
DEEP = [(341, "H", 3, (65535,) * 3, True)]


def config(reader: str, damaged: str = "blank") -> SlideConfig:
    given = {"reader": reader, "damaged": damaged, "mpp_override": MPP, "scaled_decode": False}
    return SlideConfig.model_validate(given)


def jpeg(path: Path) -> Path:
    return write(path, (IMAGE, {"photometric": "rgb", "compression": "jpeg"}), True)


KINDS = {
    "jpeg": jpeg,
    "deflate": lambda path: write_tiles(path, IMAGE),
    "16 bits": lambda path: write_tiles(path, IMAGE.astype(np.uint16) * 257, extratags=DEEP),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_tiles_are_glass_and_noted(tmp_path: Path, kind: str, reader: str) -> None:
    path = KINDS[kind](tmp_path / "a.tif")
    with open_slide(path, config(reader, "fail")) as slide:
        want = slide.read(WHOLE, MPP)
        assert slide.damaged == set()
    spoil(path, 0, 4)
    want[:TILE, :TILE] = want[TILE:, TILE : 2 * TILE] = 255
    with open_slide(path, config(reader)) as slide:
        sound = Box(TILE, 0, 150 - TILE, TILE)
        np.testing.assert_array_equal(slide.read(sound, MPP), want[:TILE, TILE:])
        assert slide.damaged == set()
        np.testing.assert_array_equal(slide.read(WHOLE, MPP), want)
        places = [(0, 0, 0, Box(0, 0, 64, 64)), (0, 1, 1, Box(64, 64, 64, 36))]
        assert sorted(slide.damaged) == places
        np.testing.assert_array_equal(slide.read(Box(30, 30, 90, 60), MPP), want[30:90, 30:120])
        assert sorted(slide.damaged) == places


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", KINDS)
def test_by_default_a_damaged_tile_is_an_error(tmp_path: Path, kind: str, reader: str) -> None:
    path = spoil(KINDS[kind](tmp_path / "a.tif"), 4)
    with (
        open_slide(path, config(reader, "fail")) as slide,
        pytest.raises(SlideReadError, match=r"a\.tif: .*level 0, (tile 4|box)"),
    ):
        slide.read(WHOLE, MPP)


@pytest.mark.parametrize("damaged", ["fail", "blank"])
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_slide_without_a_sound_tile_fails(
    tmp_path: Path, kind: str, reader: str, damaged: str
) -> None:
    path = spoil(KINDS[kind](tmp_path / "a.tif"), *range(6))
    error = SlideOpenError if damaged == "blank" else SlideError
    with pytest.raises(error, match=r"a\.tif"):  # noqa: SIM117  # either step may notice
        with open_slide(path, config(reader, damaged)) as slide:
            slide.read(WHOLE, MPP)


def test_damaged_tiles_that_bear_the_transparency_do_not_refuse_a_slide(tmp_path: Path) -> None:
    opaque = np.dstack([IMAGE, np.full(IMAGE.shape[:2], 255, np.uint8)])
    path = write_tiles(tmp_path / "a.tif", opaque, extrasamples=["unassalpha"])
    spoil(path, 3)  # the first that is looked at
    with open_slide(path, config("auto")) as slide:
        got = slide.read(WHOLE, MPP)
    assert (got[TILE:, :TILE] == 255).all()
    np.testing.assert_array_equal(got[:TILE], IMAGE[:TILE])


def test_a_tile_of_a_coarser_level_covers_its_part_of_the_slide() -> None:
    tile = place_tile(Size(1001, 700), 2, Size(250, 175), Size(64, 64), 3, 2)
    assert tile == (2, 3, 2, Box(768, 512, 233, 188))
    assert place_tile(Size(10, 10), 0, Size(10, 10), Size(10, 4), 0, 2).box == Box(0, 8, 10, 2)
