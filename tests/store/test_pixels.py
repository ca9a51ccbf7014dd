from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray

from tests.store.slides import DIGEST, GRID, SLIDE, boxes, files, noise, window
from wsiseg.geometry import Box
from wsiseg.grid import TileGrid
from wsiseg.pyramid import write_pyramid
from wsiseg.shrink import shrink_mean
from wsiseg.store import SlideStore
from wsiseg.store.codecs import CodecName


@settings(max_examples=40, deadline=None)
@given(box=boxes)
def test_any_box_of_the_image_is_read_back(
    filled: tuple[SlideStore, NDArray[np.uint8]], box: Box
) -> None:
    store, image = filled
    got = store.read_image(box)
    np.testing.assert_array_equal(got, window(image, box, 255))
    assert got.flags.c_contiguous
    assert got.dtype == np.uint8


def test_coarser_levels_are_means_of_the_finer(tmp_path: Path) -> None:
    grid = TileGrid(300, 4200, 64, 64, 256)
    store = SlideStore.create(tmp_path / "a.zarr", grid, 0.5, SLIDE)
    assert store.image_factors == (1, 4, 16)
    image = noise((300, 4200, 3))
    for block in range(grid.n_blocks):
        box = grid.block_box(block)
        store.write_image(block, image[box.slices()])
        store.mark_done("tile", block, DIGEST)
    write_pyramid(store.path, "tile")
    for level in (1, 2):
        image = shrink_mean(image, 4)
        whole = Box(0, 0, image.shape[1], image.shape[0])
        np.testing.assert_array_equal(store.read_image(whole, level), image)
    assert [len(files(store, f"image/{level}")) for level in range(3)] == [grid.n_blocks, 1, 1]


@pytest.mark.parametrize("codec", ["zstd", "lz4", "none"])
def test_every_codec_keeps_every_pixel_and_its_store(tmp_path: Path, codec: CodecName) -> None:
    store = SlideStore.create(tmp_path / "a.zarr", GRID, 0.5, SLIDE, codec)
    store.write_image(0, noise((128, 128, 3)))
    store.mark_done("tile", 0, DIGEST)
    for other in ("zstd", "none"):
        again = SlideStore.create(store.path, GRID, 0.5, SLIDE, other)
        assert again.meta["codec"] == codec
        assert again.is_done("tile", 0, DIGEST)
        np.testing.assert_array_equal(again.read_image(Box(0, 0, 128, 128)), noise((128, 128, 3)))


def test_any_tiles_are_read_as_their_boxes(
    filled: tuple[SlideStore, NDArray[np.uint8]],
) -> None:
    store, image = filled
    tiles = [(row, col) for row in range(GRID.rows) for col in range(GRID.cols)][::-1] * 2
    got = store.read_windows([store.grid.tile_box(*tile) for tile in tiles])
    assert got.shape == (len(tiles), 32, 32, 3)
    for tile, pixels in zip(tiles, got, strict=True):
        np.testing.assert_array_equal(pixels, window(image, GRID.tile_box(*tile), 255))
    assert store.read_windows([]).shape == (0, 32, 32, 3)


def test_one_file_a_block_and_array(filled: tuple[SlideStore, NDArray[np.uint8]]) -> None:
    assert files(filled[0], "image/0") == ["c/0/0/1", "c/0/1/2", "c/0/2/3"]


@pytest.mark.parametrize("block", [0, 3, 11])
def test_white_blocks_take_no_file_even_over_written_ones(store: SlideStore, block: int) -> None:
    box = GRID.block_box(block)
    white = np.full((box.height, box.width, 3), 255, np.uint8)
    store.write_image(block, white)
    assert files(store, "image/0") == []
    store.write_image(block, white // 2)
    assert len(files(store, "image/0")) == 1
    store.write_image(block, white)
    assert files(store, "image/0") == []


@pytest.mark.parametrize("block", [0, 11])
def test_squares_known_to_be_white_are_written_as_if_nothing_were_known(
    tmp_path: Path, block: int
) -> None:
    box = GRID.block_box(block)
    rows, cols = -(-box.height // 32), -(-box.width // 32)
    known = np.random.default_rng(0).random((rows, cols)) < 0.5
    pixels = np.full((box.height, box.width, 3), 255, np.uint8)
    here = known.repeat(32, 0).repeat(32, 1)[: box.height, : box.width]
    pixels[here] = noise(pixels.shape)[here]
    written = []
    for name, squares in (("a", None), ("b", known)):
        store = SlideStore.create(tmp_path / name, GRID, 0.5, SLIDE)
        store.write_image(block, pixels, squares)
        written.append([(path.name, path.read_bytes()) for path in sorted(store.path.rglob("c/*"))
                        if path.is_file()])  # fmt: skip
        np.testing.assert_array_equal(store.read_image(box), pixels)
    assert written[0] == written[1]


@pytest.mark.parametrize("block", [0, 3, 6, 11])
def test_erasing_takes_one_block_away(
    filled: tuple[SlideStore, NDArray[np.uint8]], tmp_path: Path, block: int
) -> None:
    store = SlideStore.create(tmp_path / "b.zarr", GRID, 0.5, SLIDE)
    grey = np.full((300, 420, 3), 100, np.uint8)
    for index in range(GRID.n_blocks):
        store.write_image(index, grey[GRID.block_box(index).slices()])
    store.erase_image(block)
    store.erase_image(block)
    grey[GRID.block_box(block).slices()] = 255
    np.testing.assert_array_equal(store.read_image(GRID.box), grey)


def test_a_block_written_again_replaces_the_old_one(store: SlideStore) -> None:
    for block in (0, 11):
        box = GRID.block_box(block)
        for seed in (1, 2):
            pixels = noise((box.height, box.width, 3), seed)
            pixels[:40, :40] = 255 if seed == 2 else 0
            store.write_image(block, pixels)
        np.testing.assert_array_equal(store.read_image(box), pixels)
