"""Whether the teacher reaches the CAM, with levels as CONCH has them: guided 2, read 3."""

import logging
import re

import numpy as np
import pytest
import torch
from PIL import Image

from wsiseg.config import TrainConfig
from wsiseg.model import encoders
from wsiseg.model.checkpoint import load_checkpoint, read_info
from wsiseg.model.encoders.tiny import TinyEncoder, TinyTeacher
from wsiseg.train import Patches, describe_training, train_model

CONFIG = TrainConfig(
    classes=("A", "B"), epochs=2, batch_size=4, learning_rate=0.01, device="cpu", contrast_shrink=1
)


class Apart(TinyEncoder):
    """`tiny`, whose CAM reads another level than the paper's teacher guides."""

    cam_level = 3
    guidance_levels = (2,)


@pytest.fixture(autouse=True)
def made(monkeypatch):
    """Which teachers were made; the pair `tiny` is `Apart` meanwhile."""
    teachers = []

    class Counted(TinyTeacher):
        def __init__(self):
            super().__init__()
            teachers.append(self)

    monkeypatch.setattr("wsiseg.model.encoders.tiny.TinyEncoder", Apart)
    monkeypatch.setattr("wsiseg.model.encoders.tiny.TinyTeacher", Counted)
    assert encoders.load_encoder("tiny").cam_level == 3
    return teachers


@pytest.fixture
def patches(tmp_path):
    for number in range(8):
        coarse = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(coarse.repeat(16, 0).repeat(16, 1)).save(tmp_path / f"{number}.png")
    paths = tuple(tmp_path / f"{number}.png" for number in range(8))
    return Patches(paths, np.eye(2, dtype=np.float32)[np.arange(8) % 2], 128)


def cams(patches, out, **changes):
    """CAMs of all patches after a training."""
    train_model(patches, CONFIG.model_copy(update=changes), out)
    model, _ = load_checkpoint(out)
    images = torch.from_numpy(patches.read(range(8))).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        return model(images).cams


def test_ours_distils_into_the_cam(patches, tmp_path, made):
    found = [
        cams(patches, tmp_path / f"{weight}.safetensors", struct_weight=weight)
        for weight in (0.0, 1.5, 15.0)
    ]
    assert (found[0] - found[1]).abs().max() > 1e-3
    assert (found[1] - found[2]).abs().max() > 1e-3
    assert len(made) == 2, "none without a weight"
    info = read_info(tmp_path / "1.5.safetensors")
    assert info.guidance_levels == (3,)


@pytest.mark.parametrize("preset", ["reference", "paper"])
def test_in_paper_and_code_distillation_changes_no_cam(patches, tmp_path, made, preset):
    """The 29th difference: what is claimed of distillation, neither text nor code computes."""
    found = [
        cams(patches, tmp_path / f"{weight}.safetensors", struct_weight=weight, preset=preset)
        for weight in (0.0, 1.5, 150.0)
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert len(made) == 2
    levels = {"struct_weight": 1.5, "preset": preset, "guidance_levels": (2, 3)}
    other = cams(patches, tmp_path / "both.safetensors", **levels)
    assert not torch.equal(found[0], other), "where the CAM's level is guided, it does"


def test_a_teacher_that_teaches_nothing_is_neither_made_nor_run(patches, tmp_path, made, caplog):
    config = CONFIG.model_copy(update={"guidance_levels": (0, 2)})
    facts = describe_training(patches, config)
    assert facts["distillation"] == (
        "changes no CAM: the teacher would guide level 0, 2, the CAM reads level 3; it is left out"
    )
    with caplog.at_level(logging.WARNING, "wsiseg"):
        train_model(patches, config, tmp_path / "m.safetensors")
    assert "distillation changes no CAM" in caplog.text
    assert made == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "guides level 3, which the CAM reads"),
        ({"struct_weight": 0.0}, "off"),
        ({"preset": "paper"}, "changes no CAM: .* level 2, .* level 3; it trains adapters that no"),
        ({"preset": "paper", "guidance_levels": (1, 3)}, "guides level 3, which the CAM reads"),
    ],
)
def test_a_dry_run_says_what_distillation_does(patches, changes, words):
    facts = describe_training(patches, CONFIG.model_copy(update=changes))

    assert re.match(words, facts["distillation"])
