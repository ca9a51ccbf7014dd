from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import shapely
import tifffile

import wsiseg.slide
import wsiseg.tile
from tests.slide.damaged import spoil
from tests.tile.slides import (
    CONFIG,
    SERIAL,
    contents,
    counting,
    paint,
    save,
    settle,
    written_blocks,
)
from wsiseg.compute import open_executor
from wsiseg.config import SlideConfig
from wsiseg.errors import SlideOpenError, SlideReadError, StoreError
from wsiseg.geometry import Box
from wsiseg.store import SlideStore
from wsiseg.tile import tile_digest, tile_slide


def test_a_read_failure_keeps_what_was_finished(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", paint())
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        offset, size = page.dataoffsets[-40], page.databytecounts[-40]
    broken = bytearray(path.read_bytes())
    broken[offset : offset + size] = bytes(size)
    path.write_bytes(broken)
    config = settle(slide={"reader": "tiffslide"})
    # The tissue is given, so that the damage is met by the tiles and not by the detection.
    drawn = tmp_path / "drawn.geojson"
    drawn.write_text(shapely.to_geojson(shapely.box(0, 0, 620, 480)))
    with pytest.raises(SlideReadError, match=r"a\.tif"):
        tile_slide(path, tmp_path / "a.zarr", config, SERIAL, tissue=drawn)
    assert written_blocks(SlideStore(tmp_path / "a.zarr")) > 5


@pytest.mark.parametrize("kind", ["serial", "processes"])
def test_damaged_tiles_are_glass_and_kept_on_record(
    slide_path: Path, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Two tiles of 64 px in one piece of tissue, one of them in the corners of four blocks."""
    path = spoil(Path(shutil.copy(slide_path, tmp_path / "a.tif")), 11, 21)
    blank = settle(slide={"damaged": "blank"})
    with open_executor(kind, 2) as pool:
        store = tile_slide(path, tmp_path / "a.zarr", blank, pool)
    places = [(0, 1, 1, Box(64, 64, 64, 64)), (0, 1, 2, Box(64, 128, 64, 64))]
    assert store.read_damage() == places
    assert "2 tiles of the slide's file cannot be decoded" in caplog.text
    assert "level 0, column 1, row 1; level 0, column 1, row 2" in caplog.text
    image = store.read_image(Box(64, 64, 64, 128))
    assert (image == 255).all()
    assert (store.read_image(Box(128, 64, 64, 64)) < 200).any()
    # It is kept: a second run reads nothing and says the same.
    caplog.clear()
    again = tile_slide(path, tmp_path / "a.zarr", blank, SERIAL)
    assert again.read_damage() == places
    assert "2 tiles" in caplog.text


def test_blank_belongs_to_the_digest(slide_path: Path, tmp_path: Path) -> None:
    store = tile_slide(slide_path, tmp_path / "a.zarr", CONFIG, SERIAL)
    blank = settle(slide={"damaged": "blank"})
    assert store.read_damage() == []
    assert tile_digest(store, blank) != tile_digest(store, CONFIG)
    before = store.tissue_digest
    again = tile_slide(slide_path, tmp_path / "a.zarr", blank, SERIAL)
    assert again.tissue_digest != before


def test_damage_of_before_is_forgotten(slide_path: Path, tmp_path: Path) -> None:
    path = spoil(Path(shutil.copy(slide_path, tmp_path / "a.tif")), 21)
    blank = settle(slide={"damaged": "blank"})
    store = tile_slide(path, tmp_path / "a.zarr", blank, SERIAL)
    assert len(store.read_damage()) == 1
    shutil.copy(slide_path, path)  # mended
    store.clear_marks()
    store.write_tissue(np.ones((60, 78), bool), 8.0, "")
    again = tile_slide(path, tmp_path / "a.zarr", blank, SERIAL, overwrite=True)
    assert again.read_damage() == []
    spoil(path, 21)
    tile_slide(path, tmp_path / "b.zarr", blank, SERIAL)
    shutil.copy(slide_path, path)
    again = tile_slide(path, tmp_path / "b.zarr", CONFIG, SERIAL, overwrite=True)
    assert again.read_damage() == []


def test_what_is_no_slide_and_what_is_no_store(slide_path: Path, tmp_path: Path) -> None:
    with pytest.raises(SlideOpenError, match="no such file"):
        tile_slide(tmp_path / "none.tif", tmp_path / "a.zarr", CONFIG, SERIAL)
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter.txt").write_text("mine")
    with pytest.raises(StoreError, match="thesis: holds something that wsiseg did not write"):
        tile_slide(slide_path, foreign, CONFIG, SERIAL)
    assert [path.name for path in foreign.iterdir()] == ["chapter.txt"]


def swap_after(blocks: int, path: Path, other: Path) -> Callable[[str, int, int], None]:
    """Progress that puts `other` in the place of `path` after some blocks."""

    def tell(step: str, done: int, total: int) -> None:
        if done == blocks:
            other.replace(path)

    return tell


@pytest.mark.parametrize("reader", ["openslide", "tiffslide"])
def test_a_slide_that_is_swapped_in_ends_the_run(tmp_path: Path, reader: str) -> None:
    path, other = save(tmp_path / "a.tif", paint()), save(tmp_path / "b.tif", paint()[::-1])
    config = settle(slide={"reader": reader})
    with pytest.raises(SlideReadError, match=r"a\.tif: has changed since the run was planned"):
        tile_slide(path, tmp_path / "a.zarr", config, SERIAL, swap_after(12, path, other))
    with pytest.raises(StoreError, match="of another slide"):
        tile_slide(path, tmp_path / "a.zarr", config, SERIAL)
    store = tile_slide(path, tmp_path / "a.zarr", config, SERIAL, overwrite=True)  # all new
    tile_slide(path, tmp_path / "b.zarr", config, SERIAL)
    assert contents(store.path) == contents(tmp_path / "b.zarr")


def test_a_slide_that_is_written_to_while_a_block_is_read_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.tif", paint())
    real = wsiseg.tile._parts

    def parts(*given: Any) -> Any:
        with path.open("ab") as file:
            file.write(b"more")
        return real(*given)

    monkeypatch.setattr(wsiseg.tile, "_parts", parts)
    with pytest.raises(SlideReadError, match="run again when nothing writes to it"):
        tile_slide(path, tmp_path / "a.zarr", CONFIG, SERIAL)
    assert written_blocks(SlideStore(tmp_path / "a.zarr")) == 0


def test_no_block_falls_back_to_another_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.tif", paint())
    real = wsiseg.slide.READERS["openslide"]
    opened: list[str] = []

    def once(given: Path, config: SlideConfig) -> Any:
        opened.append(config.reader)
        if len(opened) == 3:
            raise SlideOpenError(f"{given}: too many open files")
        return real(given, config)

    monkeypatch.setitem(wsiseg.slide.READERS, "openslide", once)
    said = (
        r"a\.tif: was opened by openslide when the run was planned, and is not now, but by direct"
    )
    with pytest.raises(SlideReadError, match=said):
        tile_slide(path, tmp_path / "a.zarr", CONFIG, SERIAL)
    assert opened == ["auto", "openslide", "openslide"]
    store = tile_slide(path, tmp_path / "a.zarr", CONFIG, SERIAL)
    assert store.finished("tile")


def test_a_block_opens_its_slide_once_where_direct_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, done = save(tmp_path / "a.tif", paint()), counting(monkeypatch)
    opened: list[Any] = []
    real = openslide.OpenSlide
    monkeypatch.setattr(openslide, "OpenSlide", lambda name: opened.append(name) or real(name))
    tile_slide(path, tmp_path / "a.zarr", CONFIG, SERIAL)
    planning = 2  # direct looks, then openslide opens
    assert len(opened) == planning + len(done)
    assert len(done) > 5
