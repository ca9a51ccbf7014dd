import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from wsiseg import predict as module
from wsiseg.compute import open_executor
from wsiseg.config import Config, digest_of
from wsiseg.errors import CheckpointError, ConfigError, ModelError, StoreError
from wsiseg.grid import TileGrid
from wsiseg.model import device as device_module
from wsiseg.model.checkpoint import CheckpointInfo, load_checkpoint, read_info, save_checkpoint
from wsiseg.model.construct import ConStruct
from wsiseg.model.encoders import load_encoder
from wsiseg.model.familiar import fit_familiar
from wsiseg.model.pinned import pin_source
from wsiseg.model.trained import load_trained
from wsiseg.predict import cam_side, predict_digest, predict_tiles
from wsiseg.store import SlideStore

TILE, STRIDE, BLOCK, HEIGHT, WIDTH = 64, 32, 128, 200, 300
MASK_MPP = 8.0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model of random weights: what it says does not matter here, only where it is written."""
    encoder = load_encoder("tiny")
    torch.manual_seed(0)
    model = ConStruct(encoder, ("a", "b", "c"))
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    info = CheckpointInfo(
        "tiny", encoder.identity, ("a", "b", "c"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)),
        ("a", "b", "c"), 1, mpp=0.5, tile=TILE,
    )  # fmt: skip
    return save_checkpoint(model, info, tmp_path_factory.mktemp("model") / "m.safetensors")


@pytest.fixture
def config(checkpoint):
    return Config.model_validate(
        {"predict": {"checkpoint": str(checkpoint), "batch_size": 5, "device": "cpu"}}
    )


def make_store(path, tissue=None, mpp=0.5, finished=True):
    """A tiled slide of noise; `tissue` is a mask ``(13, 19)`` at 8 µm/px, all by default."""
    grid = TileGrid(HEIGHT, WIDTH, TILE, STRIDE, BLOCK)
    store = SlideStore.create(
        path, grid, mpp, {"name": "s.svs", "identity": "x", "mpp": [mpp, mpp]}
    )
    mask = np.ones((13, 19), bool) if tissue is None else tissue
    store.write_tissue(mask, MASK_MPP, digest_of("tissue"))
    rng = np.random.default_rng(0)
    for block in range(grid.n_blocks):
        box = grid.block_box(block)
        coarse = rng.integers(60, 256, (-(-box.height // 8), -(-box.width // 8), 3), dtype=np.uint8)
        pixels = coarse.repeat(8, 0).repeat(8, 1)[: box.height, : box.width]
        store.write_image(block, pixels)
        if finished or block:
            store.mark_done("tile", block, digest_of("tiles"))
    return path


def everything(path):
    store = SlideStore(path)
    return store.read_cams(slice(0, store.grid.rows), slice(0, store.grid.cols))


def predict(path, config, kind="serial"):
    with open_executor(kind, 2) as pool:
        return predict_tiles(path, config, pool)


@pytest.fixture(scope="module")
def done(tmp_path_factory, checkpoint):
    path = make_store(tmp_path_factory.mktemp("done") / "s.zarr")
    settings = {"checkpoint": str(checkpoint), "batch_size": 5, "device": "cpu"}
    return path, predict(path, Config.model_validate({"predict": settings}))


def test_each_tile_gets_what_the_model_says_of_its_pixels(done, config, checkpoint):
    store, (cams, logits) = SlideStore(done[0]), everything(done[0])
    model, _ = load_checkpoint(checkpoint)
    side = TILE // model.encoder.level_strides[model.encoder.cam_level]
    assert cams.shape == (store.grid.rows, store.grid.cols, 3, side, side)
    assert (cams.dtype, logits.dtype) == (np.float16, np.float32)
    assert store.cam_palette.colors[1] == (4, 5, 6)
    for row, col in [(0, 0), (3, 4), (store.grid.rows - 1, store.grid.cols - 1)]:
        pixels = store.read_image(store.grid.tile_box(row, col))
        with torch.inference_mode():
            output = model(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255)
        np.testing.assert_allclose(cams[row, col], output.cams[0], atol=0.02)
        np.testing.assert_allclose(logits[row, col], output.logits[0], atol=0.002)
    assert len(np.unique(logits[..., 0])) > 10, "tiles differ"


@pytest.mark.parametrize(("enough", "spacing"), [(64, 1), (10, 5), (5, 8)])
def test_some_tiles_are_compared_with_the_training_patches(
    tmp_path, checkpoint, monkeypatch, enough, spacing
):
    """One in eight, but on small slides more, up to every one."""
    monkeypatch.setattr("wsiseg.predict._ENOUGH", enough)
    model, info = load_checkpoint(checkpoint)
    model.familiar = fit_familiar(model.encoder.embed_image(torch.rand(40, 3, TILE, TILE)))
    known = save_checkpoint(model, info, tmp_path / "known.safetensors")
    settings = {"checkpoint": str(known), "batch_size": 5, "device": "cpu"}
    path = make_store(tmp_path / "s.zarr")
    predict(path, Config.model_validate({"predict": settings}))
    store, again = SlideStore(path), load_checkpoint(known)[0]
    asked = [
        tile
        for tile in np.ndindex(store.grid.rows, store.grid.cols)
        if (3 * tile[0] + tile[1]) % spacing == 0
    ]
    boxes = [store.grid.tile_box(*tile) for tile in asked]
    pixels = torch.from_numpy(store.read_windows(boxes)).permute(0, 3, 1, 2).float() / 255
    wanted = again.familiar(again.encoder.embed_image(pixels))
    np.testing.assert_allclose(np.sort(store.read_distances()), wanted.sort()[0], rtol=1e-4)
    assert len(asked) > 4


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), 1e7])
def test_what_is_not_finite_or_too_large_is_an_error_and_not_no_tissue(tmp_path, checkpoint, scale):
    model, info = load_checkpoint(checkpoint)
    model.logit_scale.data.fill_(scale)
    settings = {"checkpoint": str(save_checkpoint(model, info, tmp_path / "m.safetensors"))}
    path = make_store(tmp_path / "s.zarr")
    with pytest.raises(ModelError, match=r"tile row 0, column 0 holds .*precision=float32"):
        predict(path, Config.model_validate({"predict": settings | {"device": "cpu"}}))
    with pytest.raises(StoreError, match="did not finish"):
        SlideStore(path).finished("predict")


def test_a_checkpoint_that_remembers_nothing_says_nothing(done):
    assert len(SlideStore(done[0]).read_distances()) == 0


@pytest.mark.parametrize("kind", ["threads", "processes", "dask"])
def test_executors_give_the_same_bytes(done, config, tmp_path, kind):
    path = make_store(tmp_path / "s.zarr")
    assert predict(path, config, kind) == done[1]
    for got, want in zip(everything(path), everything(done[0]), strict=True):
        assert got.tobytes() == want.tobytes()


def test_glass_is_not_looked_at(config, tmp_path):
    tissue = np.zeros((13, 19), bool)
    tissue[5, 7] = True  # raster pixels 80..95, 112..127: inside tiles of rows 1, 2 and cols 2, 3
    sparse = config.model_copy(
        update={"tissue": config.tissue.model_copy(update={"min_fraction": 0.0})}
    )
    path = make_store(tmp_path / "s.zarr", tissue)
    predict(path, sparse)
    cams, logits = everything(path)
    seen = np.isfinite(logits[..., 0])
    assert sorted(zip(*np.nonzero(seen), strict=True)) == [(1, 2), (1, 3), (2, 2), (2, 3)]
    assert (np.isfinite(cams).all(axis=(2, 3, 4)) == seen).all()
    assert SlideStore(path).count_tiles() == 4


def test_no_tissue_at_all_finishes(config, tmp_path):
    path = make_store(tmp_path / "s.zarr", np.zeros((13, 19), bool))
    predict(path, config)
    assert SlideStore(path).count_tiles() == 0
    assert SlideStore(path).finished("predict")


def test_resumes_and_redoes(done, config, tmp_path):
    path = make_store(tmp_path / "s.zarr")
    calls = []
    with open_executor() as pool:

        def stop(step, count, total):
            calls.append((step, count, total))
            if count == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            predict_tiles(path, config, pool, stop)
        predict_tiles(path, config, pool, lambda *call: calls.append(call))
    total = SlideStore(path).grid.n_blocks
    assert calls == [("predict", n, total) for n in (0, 1, 2, 2, *range(3, total + 1))]
    for got, want in zip(everything(path), everything(done[0]), strict=True):
        assert got.tobytes() == want.tobytes()
    with open_executor() as pool:
        calls.clear()
        predict_tiles(path, config, pool, lambda *call: calls.append(call))
        assert calls == [("predict", total, total)], "a second run does nothing"


def test_digest_holds_what_decides_the_cams(done, config, tmp_path, checkpoint):
    def changed(part, **values):
        inner = getattr(config, part).model_copy(update=values)
        return predict_digest(done[0], config.model_copy(update={part: inner}))

    base = predict_digest(done[0], config)
    assert base == done[1]
    other = tmp_path / "other.safetensors"
    model, info = load_checkpoint(checkpoint)
    model.logit_scale.data += 1
    save_checkpoint(model, info, other)
    assert len({
        base, changed("predict", tta=6), changed("predict", batch_size=4),
        changed("tissue", min_fraction=0.5), changed("predict", checkpoint=str(other)),
    }) == 5  # fmt: skip
    assert changed("outline", min_area_um2=9.0) == base
    twin = tmp_path / "twin.safetensors"
    twin.write_bytes(checkpoint.read_bytes())
    assert changed("predict", checkpoint=str(twin)) == base, "its bytes count, not its name"


def test_six_augmentations_are_averaged(done, config, tmp_path):
    path = make_store(tmp_path / "s.zarr")
    settings = config.predict.model_copy(update={"tta": 6})
    predict(path, config.model_copy(update={"predict": settings}))
    (plain, _), (mean, logits) = everything(done[0]), everything(path)
    assert 0 < np.abs(mean.astype(float) - plain.astype(float)).max() < 20
    np.testing.assert_allclose(logits, mean.astype(float).mean((3, 4)), atol=0.01)


def test_tiles_must_be_finished(config, tmp_path):
    path = make_store(tmp_path / "s.zarr", finished=False)
    with pytest.raises(StoreError, match="`wsiseg tile` did not finish here"):
        predict(path, config)
    with pytest.raises(StoreError, match="run `wsiseg tile` first"):
        predict(tmp_path / "none.zarr", config)


def test_tiles_that_were_not_read_are_no_white_tissue(config, tmp_path):
    tissue = np.ones((13, 19), bool)
    tissue[:, 10:] = False
    path = make_store(tmp_path / "s.zarr", tissue)
    store = SlideStore(path)
    store.keep_tiles(0.9)
    with pytest.raises(StoreError, match=r"tiles that tissue.min_fraction = 0.05 keeps were not r"):
        predict(path, config)
    assert not SlideStore(path).cam_source, "what is refused changes nothing"
    least = config.tissue.model_copy(update={"min_fraction": 0.9})
    predict(path, config.model_copy(update={"tissue": least}))
    store.keep_tiles(0.0)  # it read more than are asked for
    predict(path, config)


def test_other_scale_is_a_warning_that_names_both(config, tmp_path):
    path = make_store(tmp_path / "s.zarr", mpp=1.0)
    with pytest.warns(UserWarning, match=r"tiles have 1 µm/px, the checkpoint was trained at 0.5"):
        predict(path, config)
    near = make_store(tmp_path / "near.zarr", mpp=0.45)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predict(near, config)


def test_a_checkpoint_that_changes_during_the_run_is_refused(done, config, checkpoint, tmp_path):
    cpu, pinned = torch.device("cpu"), pin_source(config.predict)
    assert pinned.identity == read_info(checkpoint).sha256
    with pytest.raises(CheckpointError, match="is not the file that this run started with"):
        replace(pinned, identity="0" * 64).load(cpu)
    assert pinned.load(cpu) is pin_source(config.predict).load(cpu), "loaded once"


def test_options_reach_the_encoder(tmp_path, checkpoint):
    settings = {"checkpoint": str(checkpoint), "encoder_options": {"weights": "w.bin"}}
    config = Config.model_validate({"predict": settings})
    with pytest.raises(ConfigError, match="encoder 'tiny' has no option 'weights'"):
        predict(make_store(tmp_path / "a.zarr"), config)


def test_tile_must_fit_the_encoder(checkpoint):
    with pytest.raises(
        ConfigError,
        match=r"tile 225 does not fit encoder 'tiny', which takes multiples of 32 px; .* is 224",
    ):
        cam_side(225, load_trained(checkpoint))


def test_the_device_need_not_be_where_the_run_is_planned(config, done, tmp_path, monkeypatch):
    """A login node sends the model to workers that have the GPU which it lacks itself."""
    elsewhere = config.predict.model_copy(update={"device": "cuda:99"})
    config = config.model_copy(update={"predict": elsewhere})
    path = make_store(tmp_path / "s.zarr")
    with pytest.raises(ConfigError, match="device 'cuda:99' is not available"):
        predict(path, config)  # planned, and refused by the worker, which is this machine
    monkeypatch.setattr(device_module, "open_device", lambda name: torch.device("cpu"))
    assert predict(path, config) == done[1]
    for got, want in zip(everything(path), everything(done[0]), strict=True):
        assert got.tobytes() == want.tobytes()


OTHER_SIDE = pytest.mark.filterwarnings("ignore:.*px a side")  # 64, where it learned on 224


@pytest.fixture
def small(config):
    """The checkpoint that ships, whose encoder sees around a tile."""
    settings = {"checkpoint": "tissue", "device": "cpu"}
    return config.model_copy(update={"predict": Config(predict=settings).predict})


def with_context(config, context):
    return config.model_copy(
        update={"predict": config.predict.model_copy(update={"context": context})}
    )


@OTHER_SIDE
def test_tiles_are_seen_with_what_lies_around_them(tmp_path, small):
    store = SlideStore(make_store(tmp_path / "s.zarr"))
    with open_executor("serial") as pool:
        predict_tiles(store.path, small, pool)
    found, logits = everything(store.path)
    source = load_trained("tissue")
    whole = store.read_image(store.grid.box.grow(224))
    windows = module.plan_windows(store.grid, store.grid.block_tiles(0), 64, 16, 32)
    for window in windows:
        image = whole[window.box.slices(store.grid.box.grow(224))]
        batch = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            wide = source.cams(batch)[0]
        for row, col in window.tiles:
            top, left = (row * STRIDE - window.box.y) // 16, (col * STRIDE - window.box.x) // 16
            part = wide[:, top : top + 4, left : left + 4]
            assert np.allclose(found[row, col], part, atol=0.02)
            assert np.allclose(logits[row, col], source.pool(part[None])[0], atol=1e-3)


@OTHER_SIDE
def test_maps_go_on_across_the_borders_of_tiles(tmp_path, small):
    steps = {}
    for context in (None, 0):
        store = SlideStore(make_store(tmp_path / f"{context}.zarr"))
        with open_executor("serial") as pool:
            predict_tiles(store.path, with_context(small, context), pool)
        cams = everything(store.path)[0].astype(np.float32)
        apart = TILE // STRIDE  # tiles from one to that beside it
        across = np.abs(cams[:, apart:, ..., 0] - cams[:, :-apart, ..., -1]).mean()
        within = np.abs(np.diff(cams, axis=-1)).mean()
        steps[context] = across / within
    assert steps[0] > 1.2 * steps[None]


@OTHER_SIDE
def test_context_needs_the_pixels_of_the_blocks_around(tmp_path, small):
    path = make_store(tmp_path / "s.zarr")
    tiles = SlideStore(path).digests("tile")
    step = module.plan_predict(path, small, *tiles)
    alone = module.plan_predict(path, with_context(small, 0), *tiles)
    assert set(alone.needs(2)) == {("tile", 2), ("tile", 5)}
    assert set(step.needs(2)) == {("tile", block) for block in (1, 2, 4, 5)}
    assert step.digest != alone.digest
    assert module.plan_predict(path, with_context(small, 64), *tiles).digest == step.digest
    assert predict_digest(path, small) == step.digest


@pytest.mark.parametrize(
    ("checkpoint", "context", "message"),
    [("tissue", 40, "multiple of 32, such as 64"), ("tiny", 64, "one by one; use 0")],
)
def test_context_that_does_not_fit_is_refused(tmp_path, small, checkpoint, context, message):
    settings = with_context(small, context).predict.model_copy(update={"checkpoint": checkpoint})
    config = small.model_copy(update={"predict": settings})
    for check in (lambda: module.check_source(config),
                  lambda: predict_digest(make_store(tmp_path / "s.zarr"), config)):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            check()


@OTHER_SIDE
def test_executors_give_the_same_bytes_with_context(tmp_path, small):
    found = []
    for name in ("serial", "threads"):
        path = make_store(tmp_path / f"{name}.zarr")
        with open_executor(name, 2) as pool:
            predict_tiles(path, small, pool)
        found.append(everything(path))
    for one, other in zip(*found, strict=True):
        assert one.tobytes() == other.tobytes()
