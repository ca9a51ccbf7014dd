from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import shapely
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import wsiseg.slide
import wsiseg.tile
from tests.slide.damaged import spoil
from wsiseg.compute import SerialExecutor, open_executor
from wsiseg.config import Config, SlideConfig, TileConfig, TissueConfig, parse_config
from wsiseg.errors import GeometryError, SlideOpenError, SlideReadError, StoreError
from wsiseg.geometry import Box, Mpp, MppXY
from wsiseg.grid import TileGrid
from wsiseg.qupath import read_geojson
from wsiseg.slide import ArraySlide, open_slide
from wsiseg.store import SlideStore
from wsiseg.tile import plan_grid, plan_tile, tile_digest, tile_slide, working_mpp
from wsiseg.tissue import kept_tiles

SLIDES = Path(__file__).resolve().parents[2] / "shared" / "data" / "slides"
MPP = 1.0
SERIAL = SerialExecutor()

Image = NDArray[np.uint8]


def settle(**changes: Any) -> Config:
    """Small tiles at the slide's own resolution, and `step={...}` changed."""
    tile = {"mpp": MPP, "tile": 32, "stride": 32, "block": 128}
    base = {"tile": tile, "tissue": {"min_area_um2": 2000.0}}
    for step, values in changes.items():
        base[step] = {**base.get(step, {}), **values}
    return parse_config(base, Config, "test")


CONFIG = settle()


def paint(height: int = 480, width: int = 620) -> Image:
    """Glass with a few pieces of noisy tissue; blocks of 128 px: 20, half of them empty."""
    rng = np.random.default_rng(5)
    image = np.full((height, width, 3), 244, np.int64)
    rows, cols = np.mgrid[:height, :width]
    for x, y, radius in ((150, 130, 75), (500, 330, 60), (610, 40, 40)):
        image[np.hypot(rows - y, cols - x) < radius] = (190, 110, 170)
    return np.clip(image + rng.integers(-6, 7, image.shape), 0, 255).astype(np.uint8)


def save(path: Path, image: Image, mpp: float = MPP) -> Path:
    per_cm = 1e4 / mpp
    tifffile.imwrite(
        path, image, photometric="rgb", tile=(64, 64), compression="zlib",
        resolution=(per_cm, per_cm), resolutionunit="CENTIMETER",
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("slides") / "a.tif", paint())


def contents(store: Path) -> dict[str, str]:
    """Sha256 of every file of a store but the facts that name paths."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.name != "zarr.json"
    }


def written_blocks(store: SlideStore) -> int:
    return sum(path.is_file() for path in store.path.glob("image/0/c/0/*/*"))


def counting(monkeypatch: pytest.MonkeyPatch, limit: int | None = None) -> list[int]:
    """Note each block that is read and written; break off after `limit` of them."""
    done: list[int] = []
    real: Callable[..., None] = wsiseg.tile._tile_block

    def work(block: int, **rest: Any) -> None:
        if limit is not None and len(done) >= limit:
            raise KeyboardInterrupt
        real(block, **rest)
        done.append(block)

    monkeypatch.setattr(wsiseg.tile, "_tile_block", work)
    return done


# -- what is stored ------------------------------------------------------------------------------


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


# -- resuming ------------------------------------------------------------------------------------


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


# -- failures ------------------------------------------------------------------------------------


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


# -- planning ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "wanted", "tolerance", "mpp"),
    [
        (0.25, 0.5, 0.02, 0.5),
        (0.499, 0.5, 0.02, 0.499),
        (0.2520, 0.5, 0.02, 0.504),
        (0.2472, 0.5, 0.02, 0.4944),
        (0.263018, 0.5, 0.02, 0.5),
        (0.263018, 0.5, 0.06, 0.526036),
        (0.499, 0.5, 0.0, 0.5),
        (0.5, 0.5, 0.0, 0.5),
        (1.0, 0.5, 0.02, 0.5),
        (0.1634, 0.5, 0.02, 0.4902),
        (0.505, 0.5, 0.02, 0.505),
    ],
)
def test_working_mpp_is_the_slides_own_multiple_where_close(
    own: float, wanted: float, tolerance: float, mpp: float
) -> None:
    slide = ArraySlide(np.zeros((8, 8, 3), np.uint8), own)
    config = TileConfig(mpp=wanted, mpp_tolerance=tolerance)
    assert working_mpp(slide, config) == pytest.approx(mpp, rel=1e-12)


def test_settings_that_come_to_the_same_numbers_are_one_digest(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", paint(), 0.5)
    digests = []
    for tile in ({}, {"mpp": 0.5, "tile": 224, "stride": 224, "block": 1792}):
        config = parse_config({"tile": tile}, Config, "test")
        store = tile_slide(path, tmp_path / "a.zarr", config, SERIAL)
        digests.append(tile_digest(store, config))
    assert digests[0] == digests[1]


def test_working_mpp_needs_both_axes() -> None:
    slide = ArraySlide(np.zeros((8, 8, 3), np.uint8), 0.25)
    slide.mpp = MppXY(Mpp(0.25), Mpp(0.2502))
    assert working_mpp(slide, TileConfig()) == 0.5
    slide.mpp = MppXY(Mpp(0.2505), Mpp(0.2502))
    assert working_mpp(slide, TileConfig()) == pytest.approx(0.501)
    slide.mpp = MppXY(Mpp(0.25), Mpp(0.27))
    assert working_mpp(slide, TileConfig(mpp=0.5)) == 0.5


def test_plan_at_the_slides_own_resolution_counts_its_pixels() -> None:
    slide = ArraySlide(np.zeros((450, 900, 3), np.uint8), 0.499)
    grid, mpp = plan_grid(slide, TileConfig())
    assert (grid.width, grid.height, mpp) == (900, 450, 0.499)
    with pytest.raises(GeometryError, match="block 300 is no multiple of tile 224"):
        plan_grid(slide, TileConfig(block=300))


@settings(max_examples=100, deadline=None)
@given(
    squares=st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=6),
    corner=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    cut=st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_parts_cover_the_squares_once(
    squares: list[list[bool]], corner: tuple[int, int], cut: tuple[int, int]
) -> None:
    flags, side = np.array(squares), 10
    height, width = flags.shape[0] * side - cut[0], flags.shape[1] * side - cut[1]
    block = Box(corner[0] * 60, corner[1] * 60, width, height)
    count = np.zeros((height, width), np.int64)
    for part in wsiseg.tile._parts(flags, side, block):
        assert not part.empty
        count[part.slices(block)] += 1
    wanted = np.kron(flags, np.ones((side, side), np.int64))[:height, :width]
    np.testing.assert_array_equal(count, wanted)


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


# -- a worker does what was planned --------------------------------------------------------------


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
