import hashlib

import numpy as np
import pytest

from wsiseg.annotations import BACKGROUND, PALETTES
from wsiseg.compute import SerialExecutor, open_executor
from wsiseg.config import Config, digest_of
from wsiseg.errors import StoreError
from wsiseg.grid import TileGrid
from wsiseg.stitch import class_probabilities, stitch_labels
from wsiseg.store import SlideStore

PLAIN = Config.model_validate({"stitch": {"refine": False}})
REFINED = Config.model_validate({"stitch": {"crf": {"iterations": 2}}})
PALETTE = PALETTES["bcss"]


def make_store(path, block=448, stride=112, size=(1000, 1200), seed=0, tissue=None):
    """A store whose CAMs are smooth noise, as `predict` would leave it."""
    random = np.random.default_rng(seed)
    grid = TileGrid(*size, 224, stride, block)
    store = SlideStore.create(
        path, grid, 0.5, {"name": "x.svs", "mpp": [0.25, 0.25], "bounds": [0, 0, *size]}
    )
    if tissue is None:
        tissue = np.zeros((size[0] // 16, size[1] // 16), bool)
        tissue[5:50, 8:60] = True
    store.write_tissue(tissue, 8.0, digest_of("tissue"))
    store.create_cams(PALETTE, 7, 7)
    cams = random.normal(0, 3, (grid.rows, grid.cols, 4, 7, 7)).astype(np.float16)
    logits = random.normal(0, 2, (grid.rows, grid.cols, 4)).astype(np.float32)
    cams[0], logits[0] = np.nan, np.nan  # the first row of tiles holds no tissue
    coarse = random.integers(0, 256, (size[0] // 40 + 1, size[1] // 40 + 1, 3), dtype=np.uint8)
    image = np.kron(coarse, np.ones((40, 40, 1), np.uint8))[: size[0], : size[1]]
    for index in range(grid.n_blocks):
        n = grid.tiles_per_block
        row, col = divmod(index, grid.block_cols)
        part = (slice(row * n, (row + 1) * n), slice(col * n, (col + 1) * n))
        store.write_cams(index, cams[part], logits[part])
        store.write_image(index, image[grid.block_box(index).slices()])
    return finish(store)


def finish(store):
    store.pending("predict", digest_of("cams"))
    for index in range(store.grid.n_blocks):
        store.mark_done("predict", index, digest_of("cams"))
    return store


def sha(store):
    digest = hashlib.sha256()
    for path in sorted((store.path / "labels").rglob("*")):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def whole(store):
    return store.read_labels(store.grid.box), store.read_confidence(store.grid.box)


@pytest.mark.parametrize("stride", [224, 112])
def test_blocks_equal_the_whole_in_one_go(tmp_path, stride):
    blocks = make_store(tmp_path / "blocks.zarr", 448, stride)
    single = make_store(tmp_path / "single.zarr", 1344, stride)
    assert (blocks.grid.n_blocks, single.grid.n_blocks) == (9, 1)
    for store in (blocks, single):
        stitch_labels(store.path, PLAIN, SerialExecutor())
    for one, other in zip(whole(blocks), whole(single), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("executor", ["threads", "processes", "dask"])
def test_executors_give_the_same_bytes(tmp_path, executor):
    serial, other = (make_store(tmp_path / f"{name}.zarr") for name in ("serial", "other"))
    stitch_labels(serial.path, REFINED, SerialExecutor())
    with open_executor(executor, 2) as pool:
        stitch_labels(other.path, REFINED, pool)
    assert sha(serial) == sha(other)


def test_background_is_where_no_tissue_is(tmp_path):
    store = make_store(tmp_path / "s.zarr")
    stitch_labels(store.path, Config.model_validate({"stitch": {"gate": "none"}}), SerialExecutor())
    labels, confidence = whole(store)
    tissue = np.zeros(labels.shape, bool)
    tissue[5 * 16 : 50 * 16, 8 * 16 : 60 * 16] = True
    assert (labels[~tissue] == BACKGROUND).all()
    assert (confidence[labels == BACKGROUND] == 0).all()
    assert (confidence[labels != BACKGROUND] > 0).mean() > 0.99


def test_a_class_that_no_tile_predicts_never_occurs(tmp_path):
    store = make_store(tmp_path / "s.zarr")
    for index in range(store.grid.n_blocks):
        tiles = np.array(list(store.grid.block_tiles(index)))
        if not len(tiles):
            continue
        ends = zip(tiles.min(axis=0), tiles.max(axis=0) + 1, strict=True)
        rows, cols = (slice(*end) for end in ends)
        cams, logits = store.read_cams(rows, cols)
        logits[..., 2] = -5
        store.write_cams(index, cams, logits)
    finish(store)
    stitch_labels(store.path, PLAIN, SerialExecutor())
    assert 2 not in whole(store)[0]
    stitch_labels(
        store.path, Config.model_validate({"stitch": {"refine": False, "gate": "none"}}),
        SerialExecutor(),
    )  # fmt: skip
    assert 2 in whole(store)[0]


def test_probabilities_sum_to_one(tmp_path):
    store = make_store(tmp_path / "s.zarr")
    p = class_probabilities(store, PLAIN.stitch, store.grid.box)
    assert p.min() >= 0
    np.testing.assert_allclose(p.sum(axis=0), 1, atol=1e-5)


def test_block_borders_hardly_show_under_the_crf(tmp_path):
    config = Config()
    blocks = make_store(tmp_path / "blocks.zarr", 448)
    single = make_store(tmp_path / "single.zarr", 1344)
    for store in (blocks, single):
        stitch_labels(store.path, config, SerialExecutor())
    assert (whole(blocks)[0] != whole(single)[0]).mean() <= 0.0005


def test_pyramid_levels_hold_the_map(tmp_path):
    store = make_store(tmp_path / "s.zarr", size=(1400, 1200))
    stitch_labels(store.path, PLAIN, SerialExecutor())
    assert store.pyramid_factors == (1, 2, 4)
    fine, coarse = (store.read_labels(store.level_box(level), level) for level in (0, 2))
    assert coarse.shape == (350, 300)
    same = (fine[2::4, 2::4] == coarse).mean()
    assert same > 0.9


def test_only_unfinished_blocks_are_done_again(tmp_path):
    store = make_store(tmp_path / "s.zarr")
    digest = stitch_labels(store.path, PLAIN, SerialExecutor())
    before = sha(store)
    counts = []
    stitch_labels(store.path, PLAIN, SerialExecutor(), lambda *at: counts.append(at))
    assert counts == [("stitch", 9, 9), ("stitch-pyramid", 2, 2)]
    store.mark_done("stitch", 4, digest_of("other"))
    counts.clear()
    stitch_labels(store.path, PLAIN, SerialExecutor(), lambda *at: counts.append(at))
    assert counts == [("stitch", 8, 9), ("stitch-pyramid", 2, 2), ("stitch", 9, 9)]
    assert sha(store) == before
    assert store.finished("stitch") == digest


def test_unfinished_cams_are_refused(tmp_path):
    store = make_store(tmp_path / "s.zarr")
    store.mark_done("predict", 0, digest_of("other"))
    with pytest.raises(StoreError, match="`wsiseg predict` did not finish here"):
        stitch_labels(store.path, PLAIN, SerialExecutor())


def test_labels_change_as_often_across_borders_as_elsewhere(tmp_path):
    store = make_store(tmp_path / "s.zarr", 448, 112, tissue=np.ones((62, 75), bool))
    stitch_labels(store.path, PLAIN, SerialExecutor())
    labels, _ = whole(store)
    rates = {}
    for side in (112, 448):
        counts = np.zeros((side, 2))
        for turned in (labels, labels.T):
            both = (turned[1:] != BACKGROUND) & (turned[:-1] != BACKGROUND)
            changes = both & (turned[1:] != turned[:-1])
            np.add.at(counts[:, 0], np.arange(1, len(turned)) % side, changes.sum(axis=1))
            np.add.at(counts[:, 1], np.arange(1, len(turned)) % side, both.sum(axis=1))
        rates[side] = counts[:, 0] / counts[:, 1]
    # Tiles share no class at all here, so what is left of each shows wherever it may.
    for rate in rates.values():
        assert rate[0] < 1.25 * np.median(rate)
