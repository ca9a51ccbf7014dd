import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.distill.conftest import draw
from tests.train.test_resume import Deadly
from wsiseg.config import DistillConfig
from wsiseg.distill import distill_model, load_masks
from wsiseg.distill.augment import Views
from wsiseg.distill.labels import UNKNOWN
from wsiseg.distill.step import _to_tiles, plan_teaching, to_targets
from wsiseg.errors import CheckpointError, ConfigError, DataError, TrainingError
from wsiseg.model.card import Card
from wsiseg.model.checkpoint import load_checkpoint, read_info
from wsiseg.model.device import to_images
from wsiseg.model.encoders.ensemble import EnsembleEncoder
from wsiseg.model.load import load_source
from wsiseg.model.segment.source import load_segmenter
from wsiseg.predict import predict_tiles

CONFIG = DistillConfig(epochs=2, batch_size=3, device="cpu", learning_rate=0.01, body_rate=0.2)
STEPS_AN_EPOCH = 2

KILLED = """
import os, signal, sys
from pathlib import Path
from tests.distill.test_loop import CONFIG
from wsiseg.distill import distill_model, load_masks

def progress(step, done, total):
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)

folder = Path(sys.argv[1])
distill_model(load_masks(folder, folder / "img"), CONFIG, sys.argv[2], progress)
"""

KILLED_SCORING = """
import sys
from pathlib import Path
from tests.distill.test_loop import CONFIG
from tests.train.test_resume import Deadly
from wsiseg.distill import distill_model, load_masks

folder = Path(sys.argv[1])
windows = load_masks(folder, folder / "img")
distill_model(windows, CONFIG, sys.argv[2], validate=Deadly(1), overwrite=True)
"""


@pytest.fixture(scope="module")
def windows(masked):
    return load_masks(masked, masked / "img")


@pytest.fixture(scope="module")
def whole(windows, tmp_path_factory):
    return distill_model(windows, CONFIG, tmp_path_factory.mktemp("whole") / "m.safetensors")


def test_it_learns_what_the_masks_say(windows, tmp_path):
    changes = {"epochs": 40, "body_rate": 0.0, "stains": False, "scales": (1.0, 1.0)}
    config = CONFIG.model_copy(update=changes)
    source = load_source(distill_model(windows, config, tmp_path / "m.safetensors"))
    assert source.palette.names == ("Pink", "Blue")
    assert (source.channels, source.info.background, source.exclusive) == (3, 1, True)
    pixels, labels = draw(99)
    with torch.inference_mode():
        seen = source.look(to_images(pixels[None]))
    assert seen.shape == (1, 6, 16, 16), "CAMs and evidence of three channels"
    found = seen[0, :3].argmax(0).numpy()
    assert (found == labels[2::4, 2::4]).mean() > 0.9
    shown = source.pool(seen)[0, :2].sigmoid().numpy() > 0.25
    assert shown.tolist() == [(labels == k).any() for k in range(2)]


def test_which_classes_are_shown_is_learned_tile_by_tile(windows):
    """And told apart from what no label says."""
    labels = np.full((1, 64, 64), UNKNOWN, np.uint8)
    labels[0, :32, :32], labels[0, :2, :10] = 0, 1  # a fiftieth of the first tile
    labels[0, 32:, :32] = 2
    labels[0, 32:, 40:], labels[0, 50:, 40:] = 1, 0
    views = Views(torch.zeros(1, 3, 64, 64), labels, np.full_like(labels, 255))
    teaching = plan_teaching(replace(windows, tile=32), CONFIG)
    assert teaching.parts == 2
    shown = to_targets(views, teaching, 4).shown
    wanted = [[1, 0, 0], [np.nan] * 3, [0, 0, 1], [1, 1, 0]]
    np.testing.assert_array_equal(shown, wanted)
    numbered = torch.arange(16.0).view(1, 1, 4, 4)
    assert _to_tiles(numbered, 2)[:, 0, 0, 0].tolist() == [0, 2, 8, 10], "in the same order"
    assert plan_teaching(windows, CONFIG).parts == 1
    assert plan_teaching(replace(windows, tile=48), CONFIG).parts == 1


def test_the_body_stays_the_encoder_unless_it_has_a_rate(windows, whole, tmp_path):
    config = CONFIG.model_copy(update={"epochs": 1, "body_rate": None})
    made = load_source(distill_model(windows, config, tmp_path / "m.safetensors"))
    moved = load_source(whole).network.body.state_dict()
    body, shipped = made.network.body.state_dict(), EnsembleEncoder().network.state_dict()
    assert all(torch.equal(body[name], shipped[name]) for name in shipped)
    assert not all(torch.equal(moved[name], shipped[name]) for name in shipped)


def kill(folder, out, script=KILLED):
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script, folder, out],
        env=os.environ | {"PYTHONPATH": str(root)}, cwd=root,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL


def test_a_run_that_is_killed_while_it_is_scored_is_not_finished(masked, windows, tmp_path):
    whole, out = tmp_path / "whole" / "m.safetensors", tmp_path / "cut" / "m.safetensors"
    distill_model(windows, CONFIG, whole, validate=Deadly())
    out.parent.mkdir()
    best = out.with_name("m.best.safetensors")
    for former in (out, best, out.with_name("m.safetensors.validation.csv")):
        former.write_bytes(b"of another run")
    kill(masked, out, KILLED_SCORING)
    assert read_info(out).run, "the model is there, as if it were finished"
    assert not best.exists(), "none that belongs to another"
    calls = []
    distill_model(windows, CONFIG, out, lambda *call: calls.append(call[1]), validate=Deadly())
    assert calls == [3, 4], "the first epoch is scored, not trained again"
    names = {path.name for path in whole.parent.iterdir()}
    assert {path.name for path in out.parent.iterdir()} == names
    for name in names:
        assert out.with_name(name).read_bytes() == whole.with_name(name).read_bytes(), name


def test_a_killed_run_ends_in_the_same_bits(masked, windows, whole, tmp_path):
    out = tmp_path / "m.safetensors"
    kill(masked, out)
    assert out.exists()
    assert out.with_name("m.safetensors.unfinished").exists()
    calls = []
    distill_model(windows, CONFIG, out, lambda *call: calls.append(call))
    assert calls == [("distill", 3, 4), ("distill", 4, 4)], "whole epochs are not done again"
    names = ["m.safetensors", "m.best.safetensors", "m.safetensors.csv", "m.safetensors.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    for name in names:
        assert (tmp_path / name).read_bytes() == whole.with_name(name).read_bytes(), name


def test_the_checkpoint_says_what_it_is(windows, whole):
    info = read_info(whole)
    assert (info.kind, info.encoder, info.mpp, info.tile) == ("segmenter", "ensemble", 0.5, 64)
    assert info.identity.startswith("ensemble-")
    assert info.first_stage["sha256"] == "ab" * 32
    assert info.calibration == (), "that of masks is not calibrated"
    assert info.card is not None
    assert info.card.data[0].identity == windows.identity
    assert "by a first stage and not by people: labels masks" in info.card.labels


def test_a_checkpoint_of_another_kind_is_refused_by_name(whole):
    with pytest.raises(CheckpointError, match="is a segmenter of `wsiseg distill`, which has no"):
        load_checkpoint(whole)
    with pytest.raises(CheckpointError, match="is a construct of `wsiseg train`; a checkpoint of"):
        load_segmenter("tiny")
    with pytest.raises(CheckpointError, match="holds all its weights; leave encoder_options out"):
        load_segmenter(whole, {"weights": "x"})


def test_a_finished_model_is_only_replaced_when_asked(windows, whole):
    before = whole.read_bytes()

    def never(*call):
        raise AssertionError("the same run is done")

    assert distill_model(windows, CONFIG, whole, never) == whole
    other = CONFIG.model_copy(update={"epochs": 1})
    with pytest.raises(ConfigError, match="is the finished model of other settings"):
        distill_model(windows, other, whole)
    with pytest.raises(ConfigError, match="with another card"):
        distill_model(windows, CONFIG, whole, card=Card(title="New"))
    assert whole.read_bytes() == before


def test_a_loss_that_is_no_number_stops_the_run(windows, tmp_path):
    wild = CONFIG.model_copy(update={"learning_rate": 1e12})
    with pytest.raises(TrainingError, match=r"epoch 1, step \d: the loss is nan; none is kept; tr"):
        distill_model(windows, wild.model_copy(update={"epochs": 9}), tmp_path / "m.safetensors")


def test_windows_and_settings_that_do_not_fit(windows, tmp_path):
    def start(**settings):
        config = CONFIG.model_copy(update=settings)
        distill_model(windows, config, tmp_path / "m.safetensors")

    with pytest.raises(ConfigError, match=r"window = 96, but the patches are 64 px a side"):
        start(window=96)
    with pytest.raises(DataError, match=r"48 px a side; the network takes multiples of 32: set w"):
        start(window=48)
    with pytest.raises(ConfigError, match=r"network 'ensemble' has no option 'size'; it takes w"):
        start(network_options={"size": 3})
    assert not list(tmp_path.iterdir())


def test_its_checkpoint_predicts_a_store_as_any_other(whole, tmp_path):
    from tests.export.stores import make_store
    from wsiseg.compute import SerialExecutor
    from wsiseg.config import Config, PredictConfig

    store = make_store(tmp_path / "s.zarr", np.zeros((128, 128), np.uint8), block=128)
    store.write_tissue(np.ones((8, 8), bool), 16 * store.mpp, "7e" * 32)
    store.plan("tile", ["5e" * 32])
    store.mark_done("tile", 0, "5e" * 32)
    config = Config(predict=PredictConfig(checkpoint=str(whole), device="cpu"))
    predict_tiles(store.path, config, SerialExecutor())
    cams, logits = store.read_cams(slice(0, 2), slice(0, 2))
    assert cams.shape == (2, 2, 3, 16, 16)
    assert np.isfinite(cams).all()
    assert np.isfinite(logits).all()
    assert store.cam_palette.names == ("Pink", "Blue")
    assert store.cam_source == read_info(whole).sha256


def test_masks_of_it_are_its_own_labels(whole, masked, tmp_path):
    from wsiseg.config import MasksConfig
    from wsiseg.masks import write_masks

    config = MasksConfig(tta=1, refine=False, gate="none", device="cpu", confidence=True)
    rows = write_masks(whole, masked / "img", tmp_path, config)
    source = load_source(whole)
    for row in rows[:2]:
        with Image.open(row.image) as image, Image.open(row.mask) as mask:
            batch = to_images(np.asarray(image)[None].copy())
            shares = torch.nn.functional.interpolate(
                source.cams(batch), (64, 64), mode="bilinear"
            ).softmax(1)[0]
            agree = np.asarray(mask) == shares.argmax(0).numpy()
        assert agree.mean() > 0.999
        with Image.open(tmp_path / "confidence" / row.mask.name) as grey:
            sure = np.asarray(grey) / 255
        assert np.abs(sure - shares.amax(0).detach().numpy())[agree].max() < 0.003
