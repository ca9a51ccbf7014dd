from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.tile.slides import CONFIG, SERIAL, SLIDES, contents, save, settle, written_blocks
from wsiseg.compute import open_executor
from wsiseg.config import Config, SlideConfig, TissueConfig
from wsiseg.grid import TileGrid
from wsiseg.qupath import read_geojson
from wsiseg.slide import open_slide
from wsiseg.tile import tile_digest, tile_slide
from wsiseg.tissue import kept_tiles


@pytest.mark.parametrize("stride", [32, 16, 20])
@pytest.mark.parametrize("mpp", [1.0, 1.3])
def test_store_holds_the_slide_where_tiles_are_kept_and_white_elsewhere(
    slide_path: Path, tmp_path: Path, stride: int, mpp: float
) -> None:
    block = 320 if stride == 20 else 128
    config = settle(tile={"stride": stride, "mpp": mpp, "block": block})
    store = tile_slide(slide_path, tmp_path / "a.zarr", config, SERIAL)
    kept, grid = kept_tiles(store, config.tissue), store.grid
    assert 0 < kept.sum() < kept.size
    wanted = np.full((grid.height, grid.width, 3), 255, np.uint8)
    squares = TileGrid(grid.height, grid.width, grid.tile, grid.tile, grid.tile)
    with open_slide(slide_path) as slide:
        assert slide.raster_size(mpp) == (grid.width, grid.height)
        for row, col in np.argwhere(kept).tolist():
            for square in squares.touching(grid.tile_box(row, col)):
                box = squares.tile_box(*square).intersect(grid.box)
                wanted[box.slices()] = slide.read(box, mpp)
            inside = grid.tile_box(row, col)
            np.testing.assert_array_equal(store.read_image(inside), slide.read(inside, mpp))
    np.testing.assert_array_equal(store.read_image(grid.box), wanted)
    assert store.finished("tile") == tile_digest(store, config)


def test_facts_about_the_slide_are_kept(slide_path: Path, tmp_path: Path) -> None:
    store = tile_slide(slide_path, tmp_path / "a.zarr", CONFIG, SERIAL)
    with open_slide(slide_path) as slide:
        assert store.slide == {
            "name": "a.tif",
            "path": str(slide_path),
            "identity": slide.identity,
            "size": [620, 480],
            "mpp": [pytest.approx(1.0), pytest.approx(1.0)],
            "mpp_source": slide.mpp_source,
            "bounds": [0, 0, 620, 480],
            "vendor": slide.vendor,
            "reader": slide.reader,
        }


def test_one_file_a_block_with_tissue(slide_path: Path, tmp_path: Path) -> None:
    store = tile_slide(slide_path, tmp_path / "a.zarr", CONFIG, SERIAL)
    kept, grid = kept_tiles(store, CONFIG.tissue), store.grid
    busy = sum(any(kept[tile] for tile in grid.block_tiles(b)) for b in range(grid.n_blocks))
    assert written_blocks(store) == busy < grid.n_blocks


def test_a_slide_without_tissue_gives_an_empty_store(tmp_path: Path) -> None:
    path = save(tmp_path / "blank.tif", np.full((300, 400, 3), 244, np.uint8))
    seen: list[tuple[str, int, int]] = []
    store = tile_slide(
        path, tmp_path / "a.zarr", CONFIG, SERIAL, lambda *done: seen.append(done),
        tissue=tmp_path / "a.geojson",
    )  # fmt: skip
    assert not kept_tiles(store, CONFIG.tissue).any()
    assert written_blocks(store) == 0
    assert (store.read_image(store.grid.box) == 255).all()
    assert read_geojson(tmp_path / "a.geojson") == []
    assert store.finished("tile") == tile_digest(store, CONFIG)
    assert seen == [("tile", 12, 12)]


def test_progress_counts_every_block(slide_path: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    store = tile_slide(
        slide_path, tmp_path / "a.zarr", CONFIG, SERIAL, lambda *done: seen.append(done)
    )
    total = store.grid.n_blocks
    assert seen == [("tile", done, total) for done in range(seen[0][1], total + 1)]
    assert seen[0][1] == total - written_blocks(store)


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_every_executor_writes_the_same_bytes(slide_path: Path, tmp_path: Path, kind: str) -> None:
    tile_slide(slide_path, tmp_path / "serial.zarr", CONFIG, SERIAL)
    with open_executor(kind, 2) as executor:
        tile_slide(slide_path, tmp_path / "other.zarr", CONFIG, executor)
    assert contents(tmp_path / "other.zarr") == contents(tmp_path / "serial.zarr")


def test_real_slide(tmp_path: Path) -> None:
    path = SLIDES / "CMU-1-Small-Region.svs"
    if not path.is_file():
        pytest.skip("shared/data/slides/CMU-1-Small-Region.svs is not beside the checkout")
    store = tile_slide(path, tmp_path / "a.zarr", Config(), SERIAL)
    assert store.mpp == 0.499
    assert (store.grid.width, store.grid.height) == (2220, 2967)
    kept = kept_tiles(store, TissueConfig())
    assert 0.4 < kept.mean() < 0.65
    row, col = (int(index) for index in np.argwhere(kept)[kept.sum() // 2])
    with open_slide(path, SlideConfig()) as slide:
        box = store.grid.tile_box(row, col)
        np.testing.assert_array_equal(store.read_image(box), slide.read(box, 0.499))
