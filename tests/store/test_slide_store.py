from __future__ import annotations

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsiseg.annotations import BACKGROUND, PALETTES, Palette
from wsiseg.errors import StoreError
from wsiseg.geometry import Box
from wsiseg.grid import TileGrid
from wsiseg.lock import hold
from wsiseg.pyramid import write_pyramid
from wsiseg.shrink import shrink_mean
from wsiseg.store import FORMAT, SlideStore
from wsiseg.store import files as files_module
from wsiseg.store.codecs import CodecName
from wsiseg.store.marks import Mark, Marks
from wsiseg.store.nodes import Node

GRID = TileGrid(300, 420, 32, 32, 128)  # 3 x 4 blocks, the last ones cut
OVERLAPPING = TileGrid(300, 420, 32, 16, 128)
SLIDE: dict[str, Any] = {
    "name": "a.svs", "path": "/data/a.svs", "identity": "a" * 64, "size": [420, 300],
    "mpp": [0.5, 0.5], "mpp_source": "openslide.mpp", "bounds": [0, 0, 420, 300],
}  # fmt: skip
DIGEST, OTHER = "ab" * 32, "cd" * 32
BCSS = PALETTES["bcss"]


@pytest.fixture
def store(tmp_path: Path) -> SlideStore:
    return SlideStore.create(tmp_path / "a.zarr", GRID, 0.5, SLIDE)


def noise(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


def window(array: NDArray[Any], box: Box, outside: int) -> NDArray[Any]:
    """Any box of ``array``, with `outside` around it."""
    padded = np.pad(array, [(500, 500), (500, 500)] + [(0, 0)] * (array.ndim - 2),
                    constant_values=outside)  # fmt: skip
    return padded[box.y + 500 : box.bottom + 500, box.x + 500 : box.right + 500]


def files(store: SlideStore, array: str) -> list[str]:
    root = store.path / array
    return sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file() and path.name != "zarr.json"
    )


boxes = st.builds(
    Box, st.integers(-90, 450), st.integers(-90, 350), st.integers(0, 300), st.integers(0, 300)
)


# -- pixels --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[SlideStore, NDArray[np.uint8]]:
    """A store with blocks 1, 6 and 11 written, and what it should hold."""
    path = tmp_path_factory.mktemp("filled") / "a.zarr"
    store = SlideStore.create(path, GRID, 0.5, SLIDE)
    image = np.full((300, 420, 3), 255, np.uint8)
    for block in (1, 6, 11):
        box = GRID.block_box(block)
        image[box.slices()] = noise((box.height, box.width, 3), block)
        store.write_image(block, image[box.slices()])
    return store, image


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


# -- tissue --------------------------------------------------------------------------------------


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


# -- CAMs ----------------------------------------------------------------------------------------


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


# -- labels --------------------------------------------------------------------------------------


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


# -- marks ---------------------------------------------------------------------------------------


def test_marks_say_what_is_left_to_do(store: SlideStore) -> None:
    everything = list(range(GRID.n_blocks))
    assert store.pending("tile", DIGEST) == everything
    for block in (0, 5, 11):
        store.mark_done("tile", block, DIGEST)
    left = [block for block in everything if block not in (0, 5, 11)]
    for opened in (store, SlideStore(store.path)):
        assert opened.pending("tile", DIGEST) == left
        assert opened.pending("tile", OTHER) == everything
        assert opened.pending("predict", DIGEST) == everything
        assert [opened.is_done("tile", block, DIGEST) for block in (0, 1)] == [True, False]
        assert not opened.is_done("tile", 0, OTHER)


def test_finished_needs_every_block_with_one_digest(store: SlideStore) -> None:
    with pytest.raises(StoreError, match="`wsiseg tile` did not finish here; run it first"):
        store.finished("tile")
    for block in range(GRID.n_blocks):
        store.mark_done("tile", block, DIGEST)
        if block < GRID.n_blocks - 1:
            with pytest.raises(StoreError, match="did not finish here"):
                store.finished("tile")
    assert store.finished("tile") == DIGEST
    store.mark_done("tile", 4, OTHER)
    with pytest.raises(StoreError, match="did not finish here"):
        store.finished("tile")


def test_workers_may_make_their_first_marks_at_once(tmp_path: Path) -> None:
    grid = TileGrid(256, 256, 16, 16, 16)
    SlideStore.create(tmp_path / "a.zarr", grid, 0.5, SLIDE)

    def work(block: int) -> None:
        SlideStore(tmp_path / "a.zarr").mark_done("tile", block, DIGEST)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(grid.n_blocks)))
    assert SlideStore(tmp_path / "a.zarr").finished("tile") == DIGEST
    marks = zarr.open_array(str(tmp_path / "a.zarr/done/tile"), mode="r")
    digests = np.asarray(marks[:])[:, :32]
    assert (digests == np.frombuffer(bytes.fromhex(DIGEST), np.uint8)).all()


def test_a_block_that_is_begun_again_is_not_done(store: SlideStore) -> None:
    store.begin("tile", 0)
    for block in (0, 1):
        store.mark_done("tile", block, DIGEST)
    store.begin("tile", 0)
    assert [store.is_done("tile", block, DIGEST) for block in (0, 1)] == [False, True]


def test_cleared_marks_leave_the_pixels(store: SlideStore) -> None:
    pixels = noise((128, 128, 3))
    store.write_image(0, pixels)
    store.mark_done("tile", 0, DIGEST)
    store.mark_done("predict", 0, DIGEST)
    store.clear_marks("tile")
    store.clear_marks("tile")
    assert store.is_done("predict", 0, DIGEST)
    assert not store.is_done("tile", 0, DIGEST)
    store.mark_done("tile", 0, DIGEST)
    store.clear_marks()
    store.clear_marks()
    assert len(store.pending("tile", DIGEST)) == GRID.n_blocks
    np.testing.assert_array_equal(store.read_image(GRID.block_box(0)), pixels)
    store.mark_done("tile", 0, DIGEST)
    assert SlideStore(store.path).is_done("tile", 0, DIGEST)


# -- making and opening --------------------------------------------------------------------------


def test_facts_are_kept(store: SlideStore) -> None:
    for opened in (store, SlideStore(store.path), SlideStore(str(store.path))):
        assert (opened.grid, opened.mpp, opened.slide) == (GRID, 0.5, SLIDE)


def test_the_path_is_enough_for_a_worker(store: SlideStore) -> None:
    store.write_image(0, noise((128, 128, 3)))
    for known in (SlideStore(pickle.loads(pickle.dumps(store.path))),
                  pickle.loads(pickle.dumps(store))):  # fmt: skip
        np.testing.assert_array_equal(known.read_image(GRID.box), store.read_image(GRID.box))


def fill(store: SlideStore) -> None:
    store.write_image(0, noise((128, 128, 3)))
    store.write_tissue(np.ones((19, 27), bool), 8.0, DIGEST)
    store.create_cams(BCSS, 7, 7)
    store.create_labels(BCSS)
    store.mark_done("tile", 0, DIGEST)


def test_created_again_it_is_as_it_was(store: SlideStore) -> None:
    fill(store)
    again = SlideStore.create(store.path, GRID, 0.5, {**SLIDE, "path": "/elsewhere/a.svs"})
    assert again.is_done("tile", 0, DIGEST)
    assert again.slide["path"] == "/elsewhere/a.svs" == SlideStore(store.path).slide["path"]
    np.testing.assert_array_equal(again.read_image(Box(0, 0, 128, 128)), noise((128, 128, 3)))


@pytest.mark.parametrize(
    ("grid", "mpp", "slide"),
    [
        (OVERLAPPING, 0.5, SLIDE),
        (GRID, 0.25, SLIDE),
        (GRID, 0.5, {**SLIDE, "identity": "b" * 64}),
        (GRID, 0.5, {**SLIDE, "mpp": [0.25, 0.25]}),
    ],
    ids=["grid", "mpp", "slide", "slide's mpp"],
)
def test_another_raster_is_laid_out_anew(
    store: SlideStore, grid: TileGrid, mpp: float, slide: dict[str, Any]
) -> None:
    fill(store)
    (store.path / "notes.txt").write_text("the user's")
    again = SlideStore.create(store.path, grid, mpp, slide)
    assert (again.grid, again.mpp, again.slide) == (grid, mpp, slide)
    assert (again.read_image(grid.box) == 255).all()
    assert len(again.pending("tile", DIGEST)) == grid.n_blocks
    for look in (again.read_tissue, lambda: again.cam_palette, lambda: again.palette):
        with pytest.raises(StoreError, match="holds no"):
            look()
    assert (store.path / "notes.txt").read_text() == "the user's"


@pytest.mark.parametrize("stage", ["replace_array", "add_array"])
def test_killed_while_being_laid_out_it_is_laid_out_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "a.zarr"
    fill(SlideStore.create(path, OVERLAPPING, 0.5, SLIDE))
    for target in (path, tmp_path / "new.zarr"):
        with monkeypatch.context() as patch:
            patch.setattr(Node, stage, die)
            with pytest.raises(KeyboardInterrupt):
                SlideStore.create(target, GRID, 0.5, SLIDE)
        with pytest.raises(StoreError, match="is not a wsiseg store"):
            SlideStore(target)
        store = SlideStore.create(target, GRID, 0.5, SLIDE)
        assert len(store.pending("tile", DIGEST)) == GRID.n_blocks
        assert (store.read_image(GRID.box) == 255).all()


def test_what_is_not_ours_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder, file, foreign = tmp_path / "folder", tmp_path / "file.txt", tmp_path / "foreign.zarr"
    folder.mkdir()
    (folder / "a.txt").write_text("mine")
    file.write_text("mine")
    zarr.open_group(str(foreign), mode="w", zarr_format=3).create_group("image")
    before = sorted(tmp_path.rglob("*"))
    for path in (folder, file, foreign):
        with pytest.raises(
            StoreError, match=f"{path.name}: is not a wsiseg store; run `wsiseg tile`"
        ):
            SlideStore(path)
        with pytest.raises(StoreError, match=f"{path.name}: holds something that wsiseg did not"):
            SlideStore.create(path, GRID, 0.5, SLIDE)
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(StoreError, match=r"none\.zarr: is not a wsiseg store"):
        SlideStore(tmp_path / "none.zarr")
    assert not (tmp_path / "none.zarr").exists()


def test_an_empty_folder_will_do(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    assert SlideStore.create(tmp_path / "a.zarr", GRID, 0.5, SLIDE).grid == GRID


def test_another_format_is_named(store: SlideStore) -> None:
    path = store.path / "zarr.json"
    data = json.loads(path.read_text())
    data["attributes"]["wsiseg"]["format"] = FORMAT + 1
    path.write_text(json.dumps(data))
    with pytest.raises(
        StoreError, match=rf"has format {FORMAT + 1}, this wsiseg reads 2 to {FORMAT};"
    ):
        SlideStore(store.path)


# -- what other programs see ---------------------------------------------------------------------


def ome(path: Path) -> dict[str, Any]:
    attributes = json.loads((path / "zarr.json").read_text())["attributes"]
    return dict(attributes["ome"])


def test_image_and_labels_are_ngff_0_5(tmp_path: Path) -> None:
    grid = TileGrid(1500, 2300, 64, 64, 512)
    store = SlideStore.create(tmp_path / "a.zarr", grid, 0.25, SLIDE)
    store.create_labels(BCSS)
    for name, leading, factors in (
        ("", 1, (1, 4)),
        ("labels/classes", 0, (1, 4)),
        ("labels/confidence", 0, (1, 4)),
    ):
        meta = ome(store.path / name)
        assert meta["version"] == "0.5"
        (scales,) = meta["multiscales"]
        axes = scales["axes"]
        assert [axis["name"] for axis in axes] == ["c", "y", "x"][1 - leading :]
        assert all(axis["unit"] == "micrometer" for axis in axes[leading:])
        for factor, dataset in zip(factors, scales["datasets"], strict=True):
            array = zarr.open_array(str(store.path / name / dataset["path"]), mode="r")
            assert array.ndim == len(axes)
            assert array.metadata.dimension_names == tuple(axis["name"] for axis in axes)
            scale, *rest = dataset["coordinateTransformations"]
            pixel = 0.25 * factor
            assert scale == {"type": "scale", "scale": [1.0] * leading + [pixel] * 2}
            # The first pixel's centre, from the corner of the raster: half a pixel of any level.
            shift = rest[0]["translation"][-1] if rest else 0.0
            assert shift + 0.125 == pytest.approx(pixel / 2)
    label = ome(store.path / "labels/classes")["image-label"]
    assert [color["rgba"] for color in label["colors"]] == [[*c, 255] for c in BCSS.colors]
    assert [item["class"] for item in label["properties"]] == list(BCSS.names)
    source = (store.path / "labels/classes" / label["source"]["image"]).resolve()
    assert source == store.path.resolve()
    assert ome(store.path / "labels")["labels"] == ["classes", "confidence"]


def test_plain_zarr_reads_the_pixels(filled: tuple[SlideStore, NDArray[np.uint8]]) -> None:
    store, image = filled
    array = zarr.open_array(str(store.path / "image" / "0"), mode="r")
    assert array.shape == (3, 300, 420)
    assert array.chunks == (3, 32, 32)
    assert array.shards == (3, 128, 128)
    np.testing.assert_array_equal(np.moveaxis(np.asarray(array[:]), 0, 2), image)


@pytest.mark.parametrize("group", ["labels", "image", "tissue", "cams"])
def test_what_others_keep_in_our_groups_stays(store: SlideStore, group: str) -> None:
    """A person's own labels, as NGFF has them beside ours, or in zarr's older format."""
    fill(store)
    root = zarr.open_group(str(store.path), mode="r+", zarr_format=3)
    root[group].create_group("cells").attrs["mine"] = "kept"  # type: ignore[union-attr]
    old = store.path / group / "nuclei" / ".zgroup"
    old.parent.mkdir()
    old.write_text('{"zarr_format": 2}')
    again = SlideStore.create(store.path, OVERLAPPING, 0.5, SLIDE)
    assert (again.read_image(OVERLAPPING.box) == 255).all()
    for look in (again.read_tissue, lambda: again.cam_palette, lambda: again.palette):
        with pytest.raises(StoreError, match="holds no"):
            look()
    fill(again)
    assert again.palette == BCSS
    root = zarr.open_group(str(store.path), mode="r", zarr_format=3)
    assert root[f"{group}/cells"].attrs["mine"] == "kept"
    assert old.read_text() == '{"zarr_format": 2}'
    if group == "labels":
        assert root["labels"].attrs["ome"]["labels"] == ["cells", "classes", "confidence"]  # type: ignore[index,call-overload]


@pytest.mark.parametrize("key", ["image", "image/0", "labels", "labels/classes", "done"])
def test_a_damaged_description_does_not_keep_a_store_from_being_laid_out(
    store: SlideStore, key: str
) -> None:
    fill(store)
    store.mark_done("predict", 0, DIGEST)
    for damage in (b"", b"[]"):
        (store.path / key / "zarr.json").write_bytes(damage)
        again = SlideStore.create(store.path, OVERLAPPING, 0.5, SLIDE)
        fill(again)
        assert again.palette == BCSS
        store = SlideStore.create(store.path, GRID, 0.5, SLIDE)
        fill(store)
        store.mark_done("predict", 0, DIGEST)


def test_a_store_of_a_newer_format_is_never_laid_out_anew(store: SlideStore) -> None:
    fill(store)
    path = store.path / "zarr.json"
    data = json.loads(path.read_text())
    data["attributes"]["wsiseg"] = {"format": FORMAT + 1, "grids": "of a kind we do not know"}
    path.write_text(json.dumps(data))
    before = {file: file.read_bytes() for file in store.path.rglob("*") if file.is_file()}
    for grid in (GRID, OVERLAPPING):
        with pytest.raises(StoreError, match=rf"has format {FORMAT + 1}.*choose another output"):
            SlideStore.create(store.path, grid, 0.5, SLIDE)
    assert before == {file: file.read_bytes() for file in store.path.rglob("*") if file.is_file()}
    data["attributes"]["wsiseg"]["format"] = 1
    path.write_text(json.dumps(data))
    with pytest.raises(StoreError, match="tile the slide again"):
        SlideStore(store.path)
    assert SlideStore.create(store.path, GRID, 0.5, SLIDE).grid == GRID


def test_consolidated_metadata_of_a_user_change_nothing(store: SlideStore) -> None:
    """They are as old as the day, and named no tissue, CAMs or labels that came later."""
    with pytest.warns(UserWarning, match="Consolidated metadata"):
        zarr.consolidate_metadata(str(store.path))
    again = SlideStore.create(store.path, GRID, 0.5, SLIDE)
    fill(again)
    again.mark_done("predict", 0, DIGEST)
    for opened in (SlideStore(store.path), pickle.loads(pickle.dumps(again))):
        assert opened.read_tissue()[0].all()
        assert opened.palette == opened.cam_palette == BCSS
        opened.create_cams(BCSS, 7, 7)
        assert opened.is_done("predict", 0, DIGEST)
        opened.clear_marks("tile")
        assert not opened.is_done("tile", 0, DIGEST)
    with pytest.warns(UserWarning, match="Consolidated metadata"):
        zarr.consolidate_metadata(str(store.path))
    assert SlideStore.create(store.path, GRID, 0.25, SLIDE).mpp == 0.25
    assert SlideStore(store.path).mpp == 0.25


def test_a_block_that_lost_a_file_is_not_done_any_more(store: SlideStore) -> None:
    """Who does it would take it for done."""
    store.write_image(0, noise((128, 128, 3)))
    store.mark_done("tile", 0, DIGEST)
    for name in files(store, "image/0"):
        (store.path / "image/0" / name).unlink()
    assert store.is_done("tile", 0, DIGEST)
    _, pending = store.plan("tile", [DIGEST] * GRID.n_blocks)
    assert 0 in pending
    assert not store.is_done("tile", 0, DIGEST)


def test_who_lost_the_lock_begins_and_marks_no_block(store: SlideStore) -> None:
    """A late block of other settings landed under the mark of the run that took over."""
    store.mark_done("tile", 0, DIGEST)
    with hold(store.path) as run:
        late = pickle.loads(pickle.dumps(SlideStore(store.path, run)))
        late.begin("tile", 1)
        late.mark_done("tile", 1, DIGEST)
        late.begin("tile", 2)
    with hold(store.path) as run:
        ours = SlideStore(store.path, run)
        ours.begin("tile", 2)
        ours.write_image(2, noise((128, 128, 3), seed=1))
        ours.mark_done("tile", 2, OTHER)
        late.write_image(2, noise((128, 128, 3), seed=2))
        with pytest.raises(StoreError, match=r"this run no longer holds it: .* took over"):
            late.mark_done("tile", 2, DIGEST)
        with pytest.raises(StoreError, match="this run no longer holds it"):
            late.begin("tile", 0)
    assert 2 in store.pending("tile", OTHER), "its pixels are not what its mark says"
    assert store.is_done("tile", 0, DIGEST)
    assert store.is_done("tile", 1, DIGEST)


def test_a_step_is_finished_when_every_block_is_as_it_was_planned(store: SlideStore) -> None:
    def digests(seed: int) -> list[str]:
        return [f"{seed:02x}" * 31 + f"{block:02x}" for block in range(GRID.n_blocks)]

    whole, left = store.plan("tile", digests(1))
    assert left == list(range(GRID.n_blocks))
    for block, digest in enumerate(digests(1)):
        with pytest.raises(StoreError, match="`wsiseg tile` did not finish here"):
            store.finished("tile")
        store.mark_done("tile", block, digest)
    assert store.digests("tile") == (whole, digests(1))
    store.plan("predict", digests(2), after=whole)
    for block, digest in enumerate(digests(2)):
        store.mark_done("predict", block, digest)
    assert store.digests("predict", before="tile")[1] == digests(2)

    other = [*digests(1)[:-1], digests(3)[-1]]
    newer, left = store.plan("tile", other)
    assert left == [GRID.n_blocks - 1]
    with pytest.raises(StoreError, match="`wsiseg tile` did not finish here"):
        store.finished("tile")  # killed here, all blocks are marked, but not all of one plan
    store.mark_done("tile", left[0], other[-1])
    assert store.finished("tile") == newer != whole
    with pytest.raises(StoreError, match="tile` was run with other settings after `wsiseg predict"):
        store.digests("predict", before="tile")
    assert store.finished("predict"), "what was made of the older tiles is whole by itself"


def test_white_blocks_are_left_and_marked_together(store: SlideStore) -> None:
    for block in (1, 2, 5):
        store.write_image(block, noise((128, 128, 3)))
        store.mark_done("tile", block, OTHER)
    digests = [DIGEST] * GRID.n_blocks
    store.leave_white([0, 1, 5], digests)
    assert store.pending("tile", DIGEST) == sorted({*range(GRID.n_blocks)} - {0, 1, 5})
    assert (store.read_image(GRID.block_box(1)) == 255).all()
    assert (store.read_image(GRID.block_box(2)) < 255).any()
    assert not [path for path in (store.path / "image/0/c").rglob("*/0/1") if path.is_file()]


def test_no_mark_before_its_shards_are_on_the_disk(
    store: SlideStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    sync, write = files_module._sync, Marks.write
    before: list[set[str]] = []

    def watch(path: str) -> None:
        sync(path)
        synced.append(path)

    def note(marks: Marks, step: str, block: int, mark: Mark) -> None:
        before.append(set(synced))
        write(marks, step, block, mark)

    monkeypatch.setattr(files_module, "_sync", watch)
    monkeypatch.setattr(Marks, "write", note)
    pixels = np.zeros((128, 128, 3), np.uint8)
    for _ in range(2):  # the second time over files that were synced once
        synced.clear()
        store.begin("tile", 0)
        store.write_image(0, pixels)
        store.mark_done("tile", 0, DIGEST)
        shards = {str(path) for path in store.path.glob("image/*/c/0/0/0")}
        assert shards
        assert before[-1] >= shards | {str(Path(path).parent) for path in shards}

    def fail(path: str) -> None:
        raise OSError(f"{path}: the disk is gone")

    monkeypatch.setattr(files_module, "_sync", fail)
    store.begin("tile", 0)
    store.write_image(0, pixels)
    with pytest.raises(OSError, match="the disk is gone"):
        store.mark_done("tile", 0, DIGEST)
    assert not store.is_done("tile", 0, DIGEST)
