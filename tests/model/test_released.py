import os
import subprocess
import sys
import types
import typing
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from wsiseg.errors import CheckpointError, ConfigError
from wsiseg.model.checkpoint import trained_state
from wsiseg.model.construct import ConStruct
from wsiseg.model.encoders import load_encoder
from wsiseg.model.released import load_released, read_released
from wsiseg.model.weights import read_tensors


def make(preset="reference", seed=0):
    torch.manual_seed(seed)
    return ConStruct(load_encoder("tiny"), ("one", "two"), preset=preset).eval()


def released_state(model):
    """By the names of the released code; the tiny pair's CAM level is 1, so `l_fc2` is used."""
    named = {name.replace("l_fc.", "l_fc2."): t for name, t in trained_state(model).items()}
    return named | {"clip_adapter.model.logit_scale": torch.zeros(())}


def test_comes_back_under_our_names(tmp_path):
    source, target = make(seed=1), make(seed=2)
    torch.save({"model": released_state(source), "best_mIoU": 0.5}, tmp_path / "a.pth")
    load_released(target, tmp_path / "a.pth")
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(source(images).cams, target(images).cams)


def test_what_is_missing_is_named(tmp_path):
    tensors = released_state(make())
    del tensors["l_fc2.fc1.bias"]
    torch.save(tensors, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"released ConStruct: 1 missing: l_fc\.fc1\.bias$"):
        load_released(make(), tmp_path / "a.pth")


def test_another_number_of_classes_is_named(tmp_path):
    tensors = released_state(make())
    tensors["prototypes"] = torch.cat([tensors["prototypes"], tensors["prototypes"][:1]])
    torch.save(tensors, tmp_path / "a.pth")
    with pytest.raises(
        CheckpointError, match=r"1 of another shape: prototypes is \(\d+, 128\), should be \(\d"
    ):
        load_released(make(), tmp_path / "a.pth")


def test_only_its_own_preset_takes_it(tmp_path):
    with pytest.raises(ConfigError, match="has preset 'paper'; build it with preset 'reference'"):
        load_released(make("paper"), tmp_path / "a.pth")


def test_settings_as_python_objects_are_not_run(tmp_path):
    torch.save({"model": released_state(make()), "cfg": Settings()}, tmp_path / "a.pth")
    with pytest.raises(
        CheckpointError, match=r"holds code \(tests\.model\.test_released\.Settings"
    ):
        load_released(make(), tmp_path / "a.pth")


class Settings:
    """Stands for the released file's OmegaConf object."""


def pretend(monkeypatch, name, **members):
    """A class under the name of one that is not installed; files that hold it can be written."""
    module, _, last = name.rpartition(".")
    made = type(last, (), {"__module__": module, **members})
    for number in range(1, module.count(".") + 2):
        part = ".".join(module.split(".")[:number])
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    monkeypatch.setattr(sys.modules[module], last, made, raising=False)
    return made


def test_the_authors_settings_are_passed_over(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        settings = pretend(patch, "omegaconf.dictconfig.DictConfig")()
        meta = pretend(patch, "omegaconf.base.ContainerMetadata")()
        meta.__dict__ |= {"ref_type": typing.Any, "object_type": dict, "key_type": int,
                          "resolver_cache": defaultdict(dict, {"a": {"b": 1}})}  # fmt: skip
        settings.__dict__ |= {"_metadata": meta, "_content": {"lr": 2e-5, "path": Path("x")}}
        state = {name: torch.zeros(2) for name in ("exp_avg", "exp_avg_sq")}
        torch.save({"cfg": settings, "iter": 3, "model": released_state(make(seed=1)),
                    "optimizer": {"state": {0: state}}, "best_mIoU": np.float64(0.7)},
                   tmp_path / "best_cam.pth")  # fmt: skip
    with pytest.raises(CheckpointError, match="holds code"):
        read_tensors(tmp_path / "best_cam.pth")
    allowed = set(torch.serialization.get_safe_globals())
    found = read_released(tmp_path / "best_cam.pth")
    assert found.keys() == released_state(make()).keys()
    assert torch.equal(found["prototypes"], make(seed=1).prototypes)
    more = set(torch.serialization.get_safe_globals()) - allowed  # torch allows its own as it loads
    assert {kind for kind in more if not kind.__module__.startswith("torch.")} == set()


class _Call:
    def __init__(self, call, *arguments):
        self.reduced = call, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("call", [os.system, eval, exec, os.path.join, subprocess.Popen])
def test_calls_in_the_settings_are_never_made(tmp_path, call):
    mark = tmp_path / "mark"
    held = {"cfg": _Call(call, f"open({str(mark)!r}, 'w')"), "model": released_state(make())}
    torch.save(held, tmp_path / "a.pth")
    with suppress(CheckpointError):  # builtins are idle stand-ins, others are refused
        read_released(tmp_path / "a.pth")
    assert not mark.exists()
