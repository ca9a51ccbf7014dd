from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

import wsiseg.slide
import wsiseg.tile
from tests.tile.slides import (
    CONFIG,
    MPP,
    SERIAL,
    contents,
    counting,
    paint,
    save,
    settle,
    written_blocks,
)
from wsiseg.errors import StoreError
from wsiseg.geometry import Box
from wsiseg.slide import open_slide
from wsiseg.store import SlideStore
from wsiseg.tile import plan_tile, tile_digest, tile_slide
from wsiseg.tissue import kept_tiles


def test_a_killed_run_goes_on_where_it_was(
    slide_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tile_slide(slide_path, tmp_path / "whole.zarr", CONFIG, SERIAL)
    busy = written_blocks(whole)
    with monkeypatch.context() as patch:
        counting(patch, limit=3)
        with pytest.raises(KeyboardInterrupt):
            tile_slide(slide_path, tmp_path / "killed.zarr", CONFIG, SERIAL)
    half = SlideStore(tmp_path / "killed.zarr")
    with pytest.raises(StoreError, match="`wsiseg tile` did not finish"):
        half.finished("tile")
    assert written_blocks(half) == 3
    # The next block was being written: its file is there, its mark is not.
    pending = list(plan_tile(slide_path, half.path, CONFIG)[1].pending)
    half.write_image(pending[0], np.zeros((128, 128, 3), np.uint8))
    done = counting(monkeypatch)
    tile_slide(slide_path, tmp_path / "killed.zarr", CONFIG, SERIAL)
    assert done == pending
    assert len(done) == busy - 3
    assert contents(tmp_path / "killed.zarr") == contents(tmp_path / "whole.zarr")


def test_a_second_run_does_nothing(
    slide_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tile_slide(slide_path, tmp_path / "a.zarr", CONFIG, SERIAL)
    before = contents(store.path)
    done = counting(monkeypatch)
    tile_slide(slide_path, tmp_path / "a.zarr", CONFIG, SERIAL)
    assert done == []
    assert contents(store.path) == before


def test_a_moved_slide_is_not_done_again(
    slide_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tile_slide(slide_path, tmp_path / "a.zarr", CONFIG, SERIAL)
    moved = tmp_path / "elsewhere" / "a.tif"
    moved.parent.mkdir()
    moved.write_bytes(slide_path.read_bytes())
    done = counting(monkeypatch)
    store = tile_slide(moved, tmp_path / "a.zarr", CONFIG, SERIAL)
    assert done == []
    assert store.slide["path"] == str(moved)
    assert SlideStore(store.path).slide["path"] == str(moved)


@pytest.mark.parametrize(
    "change",
    [
        {"tissue": {"min_fraction": 0.6}},
        {"tissue": {"min_area_um2": 8_000.0}},
        {"tile": {"mpp": 2.0}},
        {"tile": {"stride": 16}},
        {"slide": {"mpp_override": 1.1}},
        {"slide": {"reader": "tiffslide"}},
        {"slide": {"scaled_decode": False}},
    ],
    ids=str,
)
def test_a_changed_setting_gives_what_a_fresh_run_gives(
    slide_path: Path, tmp_path: Path, change: dict[str, dict[str, float]]
) -> None:
    changed = settle(**change)
    old = tile_slide(slide_path, tmp_path / "a.zarr", CONFIG, SERIAL)
    before = tile_digest(old, CONFIG)
    again = tile_slide(slide_path, tmp_path / "a.zarr", changed, SERIAL)
    assert tile_digest(again, changed) != before
    tile_slide(slide_path, tmp_path / "fresh.zarr", changed, SERIAL)
    assert contents(tmp_path / "a.zarr") == contents(tmp_path / "fresh.zarr")


@pytest.mark.parametrize(
    "change", [{"stitch": {"refine": False}}, {"tissue": {"min_hole_um2": 9e3}}]
)
def test_a_setting_that_changes_no_pixel_redoes_none(
    slide_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    tile_slide(slide_path, tmp_path / "a.zarr", CONFIG, SERIAL)
    done = counting(monkeypatch)
    tile_slide(slide_path, tmp_path / "a.zarr", settle(**change), SERIAL)
    assert done == []


def test_another_slide_takes_the_store_over_only_if_it_may(
    slide_path: Path, tmp_path: Path
) -> None:
    tile_slide(slide_path, tmp_path / "a.zarr", CONFIG, SERIAL)
    before = contents(tmp_path / "a.zarr")
    other = save(tmp_path / "b.tif", paint()[::-1].copy())
    with pytest.raises(StoreError, match=r"a\.zarr: holds the results of another slide .*a\.tif"):
        tile_slide(other, tmp_path / "a.zarr", CONFIG, SERIAL)
    assert contents(tmp_path / "a.zarr") == before
    tile_slide(other, tmp_path / "a.zarr", CONFIG, SERIAL, overwrite=True)
    tile_slide(other, tmp_path / "fresh.zarr", CONFIG, SERIAL)
    assert contents(tmp_path / "a.zarr") == contents(tmp_path / "fresh.zarr")


def test_an_outline_drawn_on_a_slide_is_not_that_of_the_slide_that_replaces_it(
    slide_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outline, drawn = tmp_path / "a.geojson", shapely.to_geojson(shapely.box(96, 96, 160, 160))
    outline.write_text(drawn)
    tile_slide(slide_path, tmp_path / "a.zarr", CONFIG, SERIAL, tissue=outline, overwrite=True)
    assert outline.read_text() == drawn, "the same slide done again"
    other = save(tmp_path / "b.tif", paint()[::-1].copy())
    with pytest.raises(StoreError, match="holds the results of another slide"):
        tile_slide(other, tmp_path / "a.zarr", CONFIG, SERIAL, tissue=outline)
    assert outline.read_text() == drawn
    store = tile_slide(other, tmp_path / "a.zarr", CONFIG, SERIAL, tissue=outline, overwrite=True)
    assert store.tissue_outline == ""
    assert (tmp_path / "a.geojson.old").read_text() == drawn
    assert "outlines the tissue of another slide" in caplog.text
    fresh = tile_slide(other, tmp_path / "fresh.zarr", CONFIG, SERIAL)
    assert (store.read_tissue()[0] == fresh.read_tissue()[0]).all()


def test_edited_tissue_redoes_the_tiles_it_changes(
    slide_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outline = tmp_path / "a.geojson"
    store = tile_slide(slide_path, tmp_path / "a.zarr", CONFIG, SERIAL, tissue=outline)
    digest = tile_digest(store, CONFIG)
    assert (store.read_image(Box(480, 320, 32, 32)) < 255).any()
    drawn = shapely.box(96, 96, 160, 160)
    outline.write_text(shapely.to_geojson(drawn))
    done = counting(monkeypatch)
    store = tile_slide(slide_path, tmp_path / "a.zarr", CONFIG, SERIAL, tissue=outline)
    assert np.argwhere(kept_tiles(store, CONFIG.tissue)).tolist() == [
        [3, 3],
        [3, 4],
        [4, 3],
        [4, 4],
    ]
    assert tile_digest(store, CONFIG) != digest
    assert done == [0, 1, store.grid.block_cols, store.grid.block_cols + 1]
    pixels = store.read_image(store.grid.box)
    with open_slide(slide_path) as slide:
        box = Box(96, 96, 64, 64)
        np.testing.assert_array_equal(pixels[box.slices()], slide.read(box, MPP))
    pixels[box.slices()] = 255
    assert (pixels == 255).all(), "what is no longer tissue is white again"
    done.clear()
    outline.write_text(shapely.to_geojson(drawn) + "\n")
    tile_slide(slide_path, tmp_path / "a.zarr", CONFIG, SERIAL, tissue=outline)
    assert done == [], "another file, the same mask"


def test_an_edit_of_the_outline_redoes_the_blocks_that_it_touches(
    slide_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outline, whole = tmp_path / "a.geojson", shapely.box(32, 32, 600, 460)
    outline.write_text(shapely.to_geojson(whole))
    store = tile_slide(slide_path, tmp_path / "a.zarr", CONFIG, SERIAL, tissue=outline)
    cut = shapely.difference(whole, shapely.box(0, 0, 100, 100))
    outline.write_text(shapely.to_geojson(cut))
    done = counting(monkeypatch)
    tile_slide(slide_path, store.path, CONFIG, SERIAL, tissue=outline)
    assert done == [0]
    tile_slide(slide_path, tmp_path / "fresh.zarr", CONFIG, SERIAL, tissue=outline)
    assert contents(store.path) == contents(tmp_path / "fresh.zarr")


def test_killed_between_another_mask_and_its_plan_it_is_not_finished(
    slide_path: Path, tmp_path: Path
) -> None:
    store = tile_slide(slide_path, tmp_path / "a.zarr", CONFIG, SERIAL)
    mask, mpp, _ = store.read_tissue()
    store.write_tissue(~mask, mpp, "0" * 64)
    with pytest.raises(StoreError, match="`wsiseg tile` did not finish here"):
        SlideStore(store.path).finished("tile")


def test_another_version_of_the_arithmetic_redoes_all(
    slide_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tile_slide(slide_path, tmp_path / "a.zarr", CONFIG, SERIAL)
    monkeypatch.setattr(wsiseg.tile, "_VERSION", 99)
    done = counting(monkeypatch)
    tile_slide(slide_path, store.path, CONFIG, SERIAL)
    assert len(done) == written_blocks(store)
