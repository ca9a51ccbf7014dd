from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.model.test_prompt_file import TWO, write
from tests.model.towers import Towers
from wsiseg.config import PredictConfig
from wsiseg.errors import CheckpointError, ConfigError, MissingDependencyError
from wsiseg.model import pinned as module
from wsiseg.model.pinned import pin_source
from wsiseg.model.prompts import PromptSource

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def towers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has loaded nothing, and an encoder that needs no package."""
    monkeypatch.setattr(module, "_LOADED", {})
    monkeypatch.setattr(module, "load_prompt_encoder", lambda name, **options: Towers())
    monkeypatch.setattr(module, "check_options", lambda *_, **__: None)  # of real encoders


@pytest.fixture
def settings(tmp_path: Path) -> PredictConfig:
    return PredictConfig(prompts=str(write(tmp_path / "p.yaml")))


def test_what_decides_the_cams_is_the_identity(settings: PredictConfig, tmp_path: Path) -> None:
    def changed(**values: Any) -> str:
        return pin_source(settings.model_copy(update=values)).identity

    base = changed()
    others = [
        changed(prompts=str(write(tmp_path / "q.yaml", background=["glass"]))),
        changed(prompts=str(write(tmp_path / "r.yaml", temperature=0.1))),
        changed(prompt_window=64), changed(prompt_stride=8), changed(prompt_features="patch"),
        changed(encoder="open_clip"), changed(encoder_options={"image_size": 448}),
    ]  # fmt: skip
    assert len({base, *others}) == 8
    assert changed(checkpoint="other") == base, "prompts take its place"
    moved = tmp_path / "moved.yaml"
    moved.write_text("# the same, said otherwise\n" + yaml.safe_dump(TWO, sort_keys=True))
    assert changed(prompts=str(moved)) == base
    weights = tmp_path / "w.bin"
    weights.write_bytes(b"")
    assert changed(encoder_options={"weights": str(weights)}) == base, "bytes count, not places"


def test_workers_load_it_without_the_text_tower(
    settings: PredictConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = pin_source(settings)
    sent = pickle.loads(pickle.dumps(here))
    (tmp_path / "p.yaml").unlink()
    monkeypatch.setattr(module, "_LOADED", {})
    monkeypatch.setattr(Towers, "embed_text", None)
    there = sent.load(CPU)
    assert isinstance(there, PromptSource)
    assert there is sent.load(CPU), "loaded once"
    image = torch.rand(1, 3, 32, 32)
    np.testing.assert_array_equal(there.cams(image), here.load(CPU).cams(image))


def test_a_worker_with_other_weights_refuses(
    settings: PredictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = pin_source(settings)
    monkeypatch.setattr(module, "_LOADED", {})
    monkeypatch.setattr(Towers, "identity", "towers-2")
    with pytest.raises(CheckpointError, match="is towers-2 here, and towers-1 where this run"):
        pinned.load(CPU)


def test_settings_reach_the_source(settings: PredictConfig, tmp_path: Path) -> None:
    path = str(write(tmp_path / "t.yaml", temperature=0.5))
    update = {"prompts": path, "prompt_window": 64, "prompt_stride": 32}
    source = pin_source(settings.model_copy(update=update)).load(CPU)
    assert isinstance(source, PromptSource)
    assert (source.scale, source.window, source.step, source.stride) == (2.0, 64, 32, 32)
    assert source.name == "prompts with encoder 'conch'"


def test_encoders_that_cannot_are_refused(
    settings: PredictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="encoder 'tiny' cannot be used with prompts: it has no"):
        pin_source(settings.model_copy(update={"encoder": "tiny"}))
    with pytest.raises(ConfigError, match="encoder 'cohnc' is unknown; known are conch"):
        pin_source(settings.model_copy(update={"encoder": "cohnc"}))
    monkeypatch.setitem(__import__("sys").modules, "wsiseg.model.encoders.open_clip", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'wsiseg\[encoders\]'"):
        pin_source(settings.model_copy(update={"encoder": "open_clip"}))
