import os
import random
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from wsiseg.cli import app
from wsiseg.config import TrainConfig
from wsiseg.errors import ConfigError
from wsiseg.model.checkpoint import trained_state
from wsiseg.train import Patches, leads, train_model
from wsiseg.train.parallel import Group, check_parts, open_group
from wsiseg.train.setup import make_model

ROOT = Path(__file__).resolve().parents[2]
# 14 patches: the last batch has two, one a process. Not all show a class.
PATCHES, BATCH, SIDE = 14, 4, 64
CONFIG = TrainConfig(
    classes=("Pink", "Blue"), epochs=2, batch_size=BATCH, learning_rate=0.01, device="cpu"
)

CHILD = """
import sys
import torch
from typer.testing import CliRunner
from tests.train.test_parallel import CONFIG, call_command, find_patches
from wsiseg.train import train_model
import wsiseg.train.loop as loop

folder, out = sys.argv[1:]
save = loop._Run.save

def spy(run):
    save(run)
    state = run.trainer.state()
    parts = {**state["model"], "queue": state["queue"]}
    torch.save({n: t.clone() for n, t in parts.items()}, f"{run.out}.rank{run.group.rank}")

def train(name, **settings):
    config = CONFIG.model_copy(update=settings)
    train_model(find_patches(folder), config, f"{out}/{name}", lambda *call: print(name, *call))

def cut(run):
    save(run)
    raise KeyboardInterrupt

for preset in ("wsiseg", "paper"):
    loop._Run.save = spy
    train(preset, preset=preset)
loop._Run.save = cut
try:
    train("cut")
except KeyboardInterrupt:
    loop._Run.save = save
    train("cut")
print(call_command(folder, out), end="")
"""


SLOW_CHILD = """
import sys, time
from datetime import timedelta
import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_group, _set_pg_timeout
from tests.train.test_parallel import CONFIG, find_patches
from wsiseg.train import train_model
from wsiseg.train.parallel import Group

dist.init_process_group("gloo")
folder, out = sys.argv[1:]
lead = Group.lead

def lead_with_little_patience(group, work):
    _set_pg_timeout(timedelta(seconds=1), _get_default_group())
    try:
        lead(group, work)
    finally:
        _set_pg_timeout(timedelta(minutes=30), _get_default_group())

Group.lead = lead_with_little_patience

class Validation:
    measure = identity = "made up"

    def __init__(self, work):
        self.work = work

    def check(self, source):
        pass

    def __call__(self, source):
        return self.work()

def fail():
    raise RuntimeError("no such mask")

patches, config = find_patches(folder), CONFIG.model_copy(update={"epochs": 1})
slow = Validation(lambda: time.sleep(4) or 0.5)
train_model(patches, config, f"{out}/slow.safetensors", validate=slow)
try:
    train_model(patches, config, f"{out}/failed.safetensors", validate=Validation(fail))
except Exception as error:
    print(type(error).__name__, error)
"""


def find_patches(folder):
    paths = tuple(Path(folder) / f"{number}.png" for number in range(PATCHES))
    labels = np.eye(2, dtype=np.float32)[np.arange(PATCHES) % 2]
    labels[::5] = 0
    labels[3] = 1
    return Patches(paths, labels, SIDE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("patches"), np.random.default_rng(0)
    for number in range(PATCHES):
        coarse = rng.normal(150 + 60 * (number % 2), 40, (8, 8, 3)).clip(0, 255)
        pixels = coarse.astype(np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def call_command(folder, out):
    rows = ["image,labels", *(f"{folder}/{n}.png,Pink;Blue" for n in range(4))]
    table = Path(out) / f"{os.environ['RANK']}.csv"
    table.write_text("\n".join(rows))
    settings = ["classes=[Pink, Blue]", "epochs=1", "batch_size=4", "device=cpu"]
    arguments = [part for setting in settings for part in ("--set", setting)]
    call = ["train", str(table), "-o", f"{out}/command.safetensors", *arguments]
    return CliRunner().invoke(app, call).output


def find_port():
    """A port of those that the system gives nobody by itself, for it is bound seconds later."""
    for port in random.SystemRandom().sample(range(20_000, 30_000), 100):
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


def run_two(child, folder, out):
    """What each of two processes that run `child` printed; started as by torchrun."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_port()),
        "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    started = [
        subprocess.Popen(
            [sys.executable, "-c", child, folder, out], cwd=ROOT, stdout=subprocess.PIPE,
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    printed = [process.communicate(timeout=1200)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], printed
    return printed


@pytest.fixture(scope="module")
def ended(folder, tmp_path_factory):
    """The folder that two processes wrote, and what each printed."""
    out = tmp_path_factory.mktemp("out")
    return out, run_two(CHILD, folder, out)


def test_a_validation_may_outlast_the_time_out_and_its_failure_ends_all(folder, tmp_path):
    first, second = run_two(SLOW_CHILD, folder, tmp_path)
    assert (tmp_path / "slow.best.safetensors").exists()
    assert first.strip() == "RuntimeError no such mask"
    assert second.startswith("TrainingError the first process failed while this one waited")


@pytest.mark.parametrize("preset", ["wsiseg", "paper"])
def test_two_processes_train_the_model_of_one(folder, ended, tmp_path, preset):
    out, _ = ended
    first, second = (torch.load(out / f"{preset}.rank{rank}") for rank in range(2))
    assert first.keys() > {"prototypes", "queue", "structure_adapters.1.net.1.running_var"}
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), f"{name} is the same on both"
    config = CONFIG.model_copy(update={"preset": preset})
    alone = load_file(train_model(find_patches(folder), config, tmp_path / preset))
    losses = [
        np.genfromtxt(at / f"{preset}.csv", delimiter=",", skip_header=1) for at in (out, tmp_path)
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-3)
    np.testing.assert_allclose(losses[0][0], losses[1][0], rtol=1e-5)
    start = trained_state(make_model(config))
    for name, tensor in load_file(out / preset).items():
        # A bias before a batch norm has no gradient but rounding noise, which AdamW blows up, and
        # the running mean follows it.
        if not name.endswith(("net.0.bias", "net.3.bias", "running_mean")):
            # What it remembers of the patches is not there before.
            moved = float((alone[name] - start.get(name, alone[name])).abs().max())
            assert float((tensor - alone[name]).abs().max()) <= 1e-6 + 0.05 * moved, name


def test_only_the_first_process_prints(ended):
    out, (first, second) = ended
    assert second == ""
    assert "paper train 8 8" in first.splitlines()
    assert first.splitlines()[-1] == f"{out}/command.safetensors"


def test_two_processes_take_up_what_was_cut_off(ended):
    out, (first, _) = ended
    steps = [line.split()[2] for line in first.splitlines() if line.startswith("cut train")]
    assert steps == ["1", "2", "3", "4", "5", "6", "7", "8"], "no epoch is done twice"
    assert (out / "cut").read_bytes() == (out / "wsiseg").read_bytes()
    assert not (out / "cut.unfinished").exists()


def test_too_many_processes_for_the_last_batch():
    with pytest.raises(ConfigError, match=r"leaves 2 of 14 patches .* fewer than 3"):
        check_parts(14, CONFIG, Group(0, 3))
    check_parts(12, CONFIG, Group(0, 3))
    with pytest.raises(ConfigError, match="leaves 2 of 2 patches"):
        check_parts(2, CONFIG, Group(0, 3))


def test_one_device_for_all_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="device 'cuda:0' would be shared by 2 processes"):
        open_group("cuda:0")


def test_who_leads(monkeypatch):
    assert leads()
    monkeypatch.setenv("RANK", "1")
    assert not leads()
