import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsiseg.config import TrainConfig
from wsiseg.errors import CheckpointError, ConfigError
from wsiseg.model.card import Card
from wsiseg.model.checkpoint import read_info
from wsiseg.train import Patches, train_model

CONFIG = TrainConfig(
    classes=("Pink", "Blue"), epochs=3, batch_size=4, learning_rate=0.01, device="cpu"
)
STEPS_AN_EPOCH = 3

KILLED = """
import os, signal, sys
from tests.train.test_resume import CONFIG, find_patches
from wsiseg.train import train_model

def progress(step, done, total):
    if done == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

train_model(find_patches(sys.argv[1]), CONFIG, sys.argv[2], progress)
"""

KILLED_SCORING = """
import sys
from tests.train.test_resume import CONFIG, Deadly, find_patches
from wsiseg.train import train_model

score = Deadly(int(sys.argv[3]))
train_model(find_patches(sys.argv[1]), CONFIG, sys.argv[2], validate=score, overwrite=True)
"""


class Deadly:
    """Kills its process when it is asked to score that epoch; or scores each epoch alike."""

    measure, identity = "made up", "deadly"

    def __init__(self, epoch=None):
        self.epoch, self.scored = epoch, 0

    def check(self, source):
        pass

    def __call__(self, source):
        self.scored += 1
        if self.scored == self.epoch:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0.5


def find_patches(folder):
    paths = tuple(Path(folder) / f"{number}.png" for number in range(10))
    return Patches(paths, np.eye(2, dtype=np.float32)[np.arange(10) % 2], 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("patches"), np.random.default_rng(0)
    for number in range(10):
        pixels = rng.normal(150 + 60 * (number % 2), 20, (64, 64, 3)).clip(0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    return train_model(
        find_patches(folder), CONFIG, tmp_path_factory.mktemp("whole") / "m.safetensors"
    )


def kill(folder, out, when, script=KILLED):
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", script, folder, out, str(when)], env=environment, cwd=root
    )
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("step", [STEPS_AN_EPOCH + 2, 3 * STEPS_AN_EPOCH])
def test_a_killed_run_ends_in_the_same_bits(folder, whole, tmp_path, step):
    out = tmp_path / "m.safetensors"
    kill(folder, out, step)
    assert out.exists(), "the epochs before are there"
    assert out.with_name("m.safetensors.unfinished").exists()
    calls = []
    train_model(find_patches(folder), CONFIG, out, lambda *call: calls.append(call))
    first = (step - 1) // STEPS_AN_EPOCH * STEPS_AN_EPOCH + 1
    assert calls[0] == ("train", first, 9), "whole epochs are not done again"
    names = ["m.safetensors", "m.best.safetensors", "m.safetensors.csv", "m.safetensors.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    for name in names:
        assert (tmp_path / name).read_bytes() == whole.with_name(name).read_bytes(), name


@pytest.mark.parametrize("epoch", [1, CONFIG.epochs])
def test_a_run_that_is_killed_while_it_is_scored_is_not_finished(folder, tmp_path, epoch):
    whole, out = tmp_path / "whole" / "m.safetensors", tmp_path / "cut" / "m.safetensors"
    train_model(find_patches(folder), CONFIG, whole, validate=Deadly())
    out.parent.mkdir()
    best = out.with_name("m.best.safetensors")
    for former in (out, best, out.with_name("m.safetensors.validation.csv")):
        former.write_bytes(b"of another run")
    kill(folder, out, epoch, KILLED_SCORING)
    assert read_info(out).run, "the model is there, as if it were finished"
    assert best.exists() == (epoch > 1), "none that belongs to another"
    calls = []
    train_model(
        find_patches(folder), CONFIG, out, lambda *call: calls.append(call[1]), validate=Deadly()
    )
    first = epoch * STEPS_AN_EPOCH + 1
    assert calls == list(range(first, 3 * STEPS_AN_EPOCH + 1)), "it is scored, not trained again"
    names = {path.name for path in whole.parent.iterdir()}
    assert {path.name for path in out.parent.iterdir()} == names
    for name in names:
        assert out.with_name(name).read_bytes() == whole.with_name(name).read_bytes(), name


def test_a_replaced_model_leaves_no_scores_behind(folder, tmp_path):
    out, patches = tmp_path / "m.safetensors", find_patches(folder)
    train_model(patches, CONFIG, out, validate=Deadly())
    scores = out.with_name("m.safetensors.validation.csv")
    assert scores.exists()
    with pytest.raises(ConfigError, match="is the finished model of other settings"):
        train_model(patches, CONFIG, out)
    assert scores.exists()
    train_model(patches, CONFIG, out, overwrite=True)
    assert not scores.exists(), "they are of the model that was replaced"


def test_a_run_of_other_settings_is_not_taken_up(folder, tmp_path):
    out, patches = tmp_path / "m.safetensors", find_patches(folder)

    def stop(step, done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_model(patches, CONFIG, out, stop)
    other = CONFIG.model_copy(update={"learning_rate": 0.02})
    with pytest.raises(ConfigError, match=r"unfinished: holds an unfinished run of other settings"):
        train_model(patches, other, out)
    left, kept = out.with_name("m.safetensors.unfinished"), tmp_path / "kept"
    kept.write_bytes(left.read_bytes())
    train_model(patches, other, out, overwrite=True)
    assert read_info(out).config["learning_rate"] == 0.02
    kept.replace(left)
    left.write_bytes(left.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        train_model(patches, CONFIG, out)


def test_a_finished_model_is_only_replaced_when_asked(folder, whole, tmp_path):
    out, patches = tmp_path / "m.safetensors", find_patches(folder)
    for name in ("m.safetensors", "m.best.safetensors"):
        (tmp_path / name).write_bytes(whole.with_name(name).read_bytes())

    def never(*call):
        raise AssertionError("the same run is done")

    assert train_model(patches, CONFIG, out, never) == out
    other = CONFIG.model_copy(update={"epochs": 1})
    with pytest.raises(ConfigError, match=r"m\.safetensors: is the finished model of other sett"):
        train_model(patches, other, out)
    with pytest.raises(ConfigError, match="with another card; put the new card into it"):
        train_model(patches, CONFIG, out, card=Card(title="New"))
    assert out.read_bytes() == whole.read_bytes()
    train_model(patches, other, out, overwrite=True)
    assert read_info(out).config["epochs"] == 1
    out.write_bytes(b"a person's")
    with pytest.raises(ConfigError, match="exists and is not a finished model"):
        train_model(patches, CONFIG, out)
    assert out.read_bytes() == b"a person's"


def test_patches_that_changed_in_place_are_other_patches(folder, tmp_path):
    before = find_patches(folder)
    for path in before.paths:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert find_patches(tmp_path).identity == before.identity, "where they lie does not count"
    with Image.open(tmp_path / "3.png") as image:
        image.rotate(90).save(tmp_path / "3.png")
    assert find_patches(tmp_path).identity != before.identity


class Scripted:
    """Gives the scores that it was given, and keeps what was there to score."""

    measure, identity = "made up", "scripted"

    def __init__(self, out, *scores):
        self.out, self.scores, self.kept = out, list(scores), {}

    def check(self, source):
        assert source.channels == 2

    def __call__(self, source):
        assert not source.model.training
        score = self.scores.pop(0)
        self.kept[score] = self.out.read_bytes()
        return score


def test_the_best_epoch_is_kept_beside_the_last(folder, tmp_path):
    out = tmp_path / "m.safetensors"
    validate = Scripted(out, 0.2, 0.9, 0.5)
    train_model(find_patches(folder), CONFIG, out, validate=validate)
    kept = validate.kept
    assert (tmp_path / "m.best.safetensors").read_bytes() == kept[0.9]
    assert out.read_bytes() == kept[0.5]
    table = out.with_name("m.safetensors.validation.csv").read_text()
    assert table == "epoch,made up\n1,0.2\n2,0.9\n3,0.5\n"


def test_the_curves_are_a_picture(whole):
    with Image.open(whole.with_name("m.safetensors.png")) as image:
        colors = {color for _, color in image.convert("RGB").getcolors(1 << 20)}
    assert {(0, 0, 0), (0, 114, 178), (0, 158, 115), (213, 94, 0)} <= colors
