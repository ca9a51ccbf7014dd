import numpy as np
import pytest

from tests.export.stores import MPP
from tests.view.runs import make_run
from wsiseg.annotations import BACKGROUND
from wsiseg.compute import SerialExecutor
from wsiseg.config import Config, SlideConfig
from wsiseg.demo.synthesis import synthesize_slide
from wsiseg.geometry import Box
from wsiseg.pyramid import write_pyramid
from wsiseg.slide import open_slide
from wsiseg.tile import tile_slide
from wsiseg.view.scene import TILE, Scene


@pytest.fixture(scope="module")
def scene(run):
    return Scene(run / "slides/one.zarr")


def nearest(labels, zoom, col, row, scale=1.0):
    """The slow obvious tile: one pixel after the other."""
    out = np.zeros((TILE, TILE), np.uint8)
    for i in range(TILE):
        for j in range(TILE):
            y = int((row * TILE + i + 0.5) * 2.0**zoom * scale // 1)
            x = int((col * TILE + j + 0.5) * 2.0**zoom * scale // 1)
            if y < labels.shape[0] and x < labels.shape[1]:
                out[i, j] = (int(labels[y, x]) + 1) % 256
    return out


@pytest.mark.parametrize(("zoom", "col", "row"), [(0, 0, 0), (0, 1, 1), (-1, 1, 1), (-3, 3, 2)])
def test_label_tiles_are_the_raster_enlarged_to_the_pixel(scene, labels, zoom, col, row):
    assert (scene.raster("labels", zoom, col, row) == nearest(labels, zoom, col, row)).all()


def test_coarser_tiles_come_from_the_pyramid(scene):
    level = scene.store.read_labels(scene.store.level_box(1), 1)
    tile = scene.raster("labels", 1, 0, 0)
    height, width = level.shape
    assert (tile[:height, :width] == np.where(level == BACKGROUND, 0, level + 1)).all()
    assert not tile[height:].any()


def test_confidence_is_as_stored_and_off_the_raster_is_nothing(scene):
    stored = scene.store.read_confidence(scene.store.level_box(0))
    assert (scene.raster("confidence", 0, 0, 0) == stored[:TILE, :TILE]).all()
    assert scene.raster("labels", 0, 2, 0) is None
    assert scene.raster("labels", -40, 0, 0) is None
    assert scene.raster("labels", 0, -1, 0) is None


def test_without_the_slide_the_photo_is_the_stores(scene):
    assert scene.mpp == MPP
    assert scene.slide is None
    assert "was moved; give the folder of the slides with `--slides FOLDER`" in scene.missing
    pixels = scene.store.read_image(scene.store.level_box(0))
    assert (scene.photo(0, 1, 1) == pixels[TILE:, TILE : 2 * TILE]).all()
    coarse = scene.photo(1, 0, 0)
    assert coarse.shape == (350, 450, 3)
    assert abs(int(coarse[3, 4].mean()) - pixels[6:8, 8:10].mean()) <= 1
    assert scene.photo(0, 9, 0) is None


def test_the_label_at_a_point_is_the_rasters(scene, labels):
    for x, y in ((200.5, 150.5), (899.9, 699.9), (333, 444)):
        assert scene.label_at(x, y)[0] == labels[int(y), int(x)]
    assert scene.label_at(-1, 5) is None
    assert scene.label_at(1e300, 5) is None


def test_addresses_change_with_what_they_show(tmp_path):
    store = make_run(tmp_path)
    before = Scene(store.path)
    assert before.is_current()
    for block in range(store.grid.n_blocks):
        store.mark_done("stitch", block, "11" * 32)
    after = Scene(store.path)
    assert not before.is_current()
    assert before.versions["labels"] != after.versions["labels"]
    assert before.versions["photo"] == after.versions["photo"]


def test_a_run_with_other_settings_is_seen_by_its_plan_alone(tmp_path):
    store = make_run(tmp_path)
    digests = ["5e" * 32] * store.grid.n_blocks
    whole, pending = store.plan("stitch", digests)
    assert pending == []
    assert store.marked("stitch") == "", "its coarser levels are of an earlier run"
    write_pyramid(store.path, "stitch")
    scene = Scene(store.path)
    assert scene.labelled == whole == store.finished("stitch") == store.planned("stitch")
    assert scene.is_current()
    store.plan("stitch", ["12" * 32] * store.grid.n_blocks)
    assert not scene.is_current()
    making = Scene(store.path)
    assert making.labelled == store.marked("stitch") == ""
    assert making.is_current(), "as long as it is being made"
    assert making.version != scene.version
    store.plan("stitch", digests)
    assert scene.is_current()
    assert not making.is_current()


def test_a_map_that_was_finished_is_seen(tmp_path):
    store = make_run(tmp_path)
    digests = ["12" * 32] * store.grid.n_blocks
    store.plan("stitch", digests)
    making = Scene(store.path)
    for block in range(store.grid.n_blocks):
        store.mark_done("stitch", block, digests[block])
        assert making.is_current()
    write_pyramid(store.path, "stitch")
    assert not making.is_current()
    assert Scene(store.path).version != making.version


def test_the_slide_itself_is_shown_wherever_it_lies(tmp_path):
    path = tmp_path / "a.svs"
    synthesize_slide(path, width=1200, height=900, seed=5)
    settings = Config.model_validate({"tile": {"block": 448}})
    tile_slide(path, tmp_path / "a.zarr", settings, SerialExecutor())
    there = Scene(tmp_path / "a.zarr")
    with open_slide(path, SlideConfig()) as slide:
        assert tuple(there.size) == tuple(slide.size)
        assert (there.photo(0, 1, 0) == slide.read_level(0, _box(slide.size, 1, 0))).all()
    there.close()
    moved = tmp_path / "elsewhere" / "a.svs"
    moved.parent.mkdir()
    path.rename(moved)
    assert Scene(tmp_path / "a.zarr").slide is None
    found = Scene(tmp_path / "a.zarr", moved.parent)
    assert found.slide is not None
    found.close()
    moved.write_bytes(b"another")
    assert "cannot be opened" in Scene(tmp_path / "a.zarr", moved.parent).missing


def _box(size, col, row):
    return Box(col * TILE, row * TILE, TILE, TILE).intersect(Box(0, 0, *size))


def test_scores_are_shares_of_the_cam_or_the_stored_probability(tmp_path):
    store = make_run(tmp_path)
    grid = store.grid
    store.create_cams(store.palette, 2, 2, channels=5)
    rng = np.random.default_rng(3)
    n = grid.tiles_per_block
    for block in range(grid.n_blocks):
        cams = rng.normal(size=(n, n, 5, 2, 2)).astype(np.float16)
        store.write_cams(block, cams, cams.mean(axis=(3, 4)).astype(np.float32))
        store.mark_done("predict", block, "22" * 32)
    scene = Scene(store.path)
    assert scene.scores == "CAM"
    tile = scene.raster("score-1", 0, 0, 0)
    cams, _ = store.read_cams(slice(2, 3), slice(3, 4))
    x, y = 3 * 64 + 40, 2 * 64 + 10  # the right half, upper cell of tile (2, 3)
    powers = np.exp(cams[0, 0, :, 0, 1].astype(np.float64))
    assert abs(int(tile[y, x]) - 255 * powers[1] / powers.sum()) <= 1
    fresh = store  # it knows what it wrote of the labels
    fresh.create_probabilities()
    for block in range(grid.n_blocks):
        box = grid.block_box(block)
        fresh.write_probabilities(block, 0, np.full((4, box.height, box.width), 10, np.uint8))
        fresh.mark_done("stitch", block, "33" * 32)
    scene = Scene(store.path)
    assert scene.scores == "probability"
    assert scene.raster("score-2", 0, 0, 0)[5, 5] == 10
