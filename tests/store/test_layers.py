from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.store.slides import BCSS, DIGEST, GRID, OTHER, OVERLAPPING, SLIDE, files, noise, window
from wsiseg.annotations import BACKGROUND, Palette
from wsiseg.errors import StoreError
from wsiseg.geometry import Box
from wsiseg.grid import TileGrid
from wsiseg.store import SlideStore
from wsiseg.store.nodes import Node


def test_tissue_round_trip_and_replacement(store: SlideStore) -> None:
    with pytest.raises(StoreError, match=r"a\.zarr: holds no tissue mask; run `wsiseg tile`"):
        store.read_tissue()
    assert store.tissue_digest == ""
    for shape, mpp, digest in (((19, 27), 8.0, DIGEST), ((38, 53), 4.0, OTHER)):
        mask = noise(shape) > 100
        store.write_tissue(mask, mpp, digest)
        for opened in (store, SlideStore(store.path)):
            got, got_mpp, got_digest = opened.read_tissue()
            np.testing.assert_array_equal(got, mask)
            assert got.dtype == bool
            assert (got_mpp, got_digest, opened.tissue_digest) == (mpp, digest, digest)
            assert opened.tissue_mpp == mpp
            for box in (Box(3, 2, 9, 5), Box(-4, -2, 9, 9), Box(20, 10, 60, 60), Box(70, 0, 2, 2)):
                part = opened.read_tissue(box)[0]
                np.testing.assert_array_equal(part, window(mask, box, 0))
    assert files(store, "tissue/mask") == ["c/0/0"]


def test_tissue_beyond_the_raster_has_no_area(store: SlideStore) -> None:
    mask = np.ones((19, 27), bool)  # at 8 µm/px, of a raster of 150 x 210 µm
    store.write_tissue(mask, 8.0, DIGEST)
    assert store.tissue_mm2 == pytest.approx(0.150 * 0.210)
    mask[:-1, :-1] = False
    mask[-1, -1] = False
    store.write_tissue(mask, 8.0, DIGEST)
    assert store.tissue_mm2 == pytest.approx(0.006 * 0.208 + 0.002 * 0.144)


def test_a_mask_half_written_is_no_mask(store: SlideStore, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = noise((19, 27)) > 100
    store.write_tissue(mask, 8.0, DIGEST)

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Node, "replace_array", die)
        with pytest.raises(KeyboardInterrupt):
            store.write_tissue(~mask, 8.0, OTHER)
    with pytest.raises(StoreError, match="holds no tissue mask"):
        SlideStore(store.path).read_tissue()


@pytest.mark.parametrize("grid", [GRID, OVERLAPPING, TileGrid(300, 420, 32, 32, 32)])
def test_cams_round_trip(tmp_path: Path, grid: TileGrid) -> None:
    store = SlideStore.create(tmp_path / "a.zarr", grid, 0.5, SLIDE)
    with pytest.raises(StoreError, match="holds no CAMs; run `wsiseg predict` first"):
        store.read_cams(slice(0, 1), slice(0, 1))
    with pytest.raises(StoreError, match="holds no CAMs"):
        store.cam_palette  # noqa: B018  # the look-up is the test
    store.create_cams(BCSS, 7, 6)
    assert (store.cam_palette, store.cam_size) == (BCSS, (7, 6))
    rng = np.random.default_rng(0)
    whole = rng.standard_normal((grid.rows, grid.cols, 4, 7, 6)).astype(np.float16)
    logits = rng.standard_normal((grid.rows, grid.cols, 4)).astype(np.float32)
    skipped = 1
    for block in range(grid.n_blocks):
        tiles = np.array(list(grid.block_tiles(block))).reshape(-1, 2)
        if not len(tiles):
            continue
        rows = slice(tiles[:, 0].min(), tiles[:, 0].max() + 1)
        cols = slice(tiles[:, 1].min(), tiles[:, 1].max() + 1)
        if block == skipped:
            whole[rows, cols], logits[rows, cols] = np.nan, np.nan
        else:
            store.write_cams(block, whole[rows, cols], logits[rows, cols])
    got = SlideStore(store.path).read_cams(slice(0, grid.rows), slice(0, grid.cols))
    np.testing.assert_array_equal(got[0], whole)
    np.testing.assert_array_equal(got[1], logits)
    assert (got[0].dtype, got[1].dtype) == (np.float16, np.float32)
    assert store.count_tiles() == np.isfinite(logits[..., 0]).sum()
    assert len(files(store, "cams/logits")) == len(files(store, "cams/classes")) < grid.n_blocks


def test_kinds_of_background_follow_the_classes(store: SlideStore) -> None:
    store.create_cams(BCSS, 2, 2)
    assert store.cam_channels == len(store.cam_palette) == 4
    store.create_cams(BCSS, 2, 2, channels=6)
    assert (store.cam_channels, len(store.cam_palette)) == (6, 4)
    cams, logits = np.ones((4, 4, 6, 2, 2), np.float16), np.ones((4, 4, 6), np.float32)
    store.write_cams(0, cams, logits)
    found = store.read_cams(slice(0, 4), slice(0, 4))
    assert (found[0].shape, found[1].shape) == (cams.shape, logits.shape)
    assert SlideStore(store.path).cam_channels == 6


def test_cams_of_the_same_shape_stay_and_of_another_go(store: SlideStore) -> None:
    store.create_cams(BCSS, 7, 7)
    store.write_cams(0, np.ones((4, 4, 4, 7, 7), np.float16), np.ones((4, 4, 4), np.float32))
    renamed = Palette(("A", "B", "C", "D"), BCSS.colors)
    store.create_cams(renamed, 7, 7)
    assert store.count_tiles() == 16
    assert store.cam_palette == renamed
    store.mark_done("predict", 0, DIGEST)
    store.create_cams(renamed, 7, 7)
    assert store.is_done("predict", 0, DIGEST)
    store.create_cams(renamed, 8, 7)
    assert not store.is_done("predict", 0, DIGEST)
    assert store.count_tiles() == 0
    assert store.cam_size == (8, 7)


def test_labels_round_trip_on_every_level(tmp_path: Path) -> None:
    grid = TileGrid(1500, 2300, 448, 448, 896)
    store = SlideStore.create(tmp_path / "a.zarr", grid, 0.5, SLIDE)
    with pytest.raises(StoreError, match="holds no labels; run `wsiseg stitch` first"):
        store.palette  # noqa: B018  # the look-up is the test
    with pytest.raises(StoreError, match="holds no labels/classes/0"):
        store.read_labels(Box(0, 0, 1, 1))
    store.create_labels(BCSS)
    assert store.palette == BCSS
    assert store.pyramid_factors == (1, 2, 4, 8)
    assert list(store.block_levels) == [0, 1]
    for level in store.block_levels:
        whole, factor = store.level_box(level), store.pyramid_factors[level]
        labels, confidence = (
            noise((whole.height, whole.width), 1),
            noise((whole.height, whole.width), 2),
        )
        for block in range(grid.n_blocks):
            box = grid.block_box(block)
            part = Box(
                box.x // factor, box.y // factor, -(-box.width // factor), -(-box.height // factor)
            )
            store.write_labels(block, level, labels[part.slices()], confidence[part.slices()])
        for box in (whole, Box(-3, 5, 40, 50), Box(whole.width - 2, whole.height - 3, 9, 9)):
            np.testing.assert_array_equal(
                store.read_labels(box, level), window(labels, box, BACKGROUND)
            )
            np.testing.assert_array_equal(
                store.read_confidence(box, level), window(confidence, box, 0)
            )
        assert len(files(store, f"labels/classes/{level}")) == grid.n_blocks


def test_labels_that_were_never_written_are_background(store: SlideStore) -> None:
    store.create_labels(BCSS)
    assert (store.read_labels(GRID.box) == BACKGROUND).all()
    assert (store.read_confidence(GRID.box) == 0).all()
    assert files(store, "labels") == []


def test_labels_of_another_palette_are_laid_out_anew(store: SlideStore) -> None:
    store.create_labels(BCSS)
    grey = np.full((128, 128), 1, np.uint8)
    store.write_labels(0, 0, grey, grey)
    store.create_labels(BCSS)
    assert (store.read_labels(Box(0, 0, 128, 128)) == 1).all()
    other = Palette(("Tumor",), ((1, 2, 3),))
    store.mark_done("stitch", 0, DIGEST)
    store.create_labels(other)
    assert not store.is_done("stitch", 0, DIGEST)
    assert store.palette == other == SlideStore(store.path).palette
    assert (store.read_labels(GRID.box) == BACKGROUND).all()
