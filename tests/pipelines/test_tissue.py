"""The pipelines that make `lite` and `tissue`, from a few tiles of noise."""

import csv
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from wsiseg.model.checkpoint import read_info
from wsiseg.model.encoders.lite_network import LiteNetwork
from wsiseg.model.encoders.small_network import SmallNetwork
from wsiseg.train.encoder import FitSettings

PIPELINES = Path(__file__).parents[2] / "pipelines"


@pytest.fixture
def pipelines(monkeypatch):
    monkeypatch.syspath_prepend(str(PIPELINES))
    import tile_encoder
    import tissue_checkpoint

    yield tile_encoder, tissue_checkpoint
    for name in ("tile_encoder", "tissue_checkpoint"):
        sys.modules.pop(name, None)


@pytest.fixture
def atlas(tmp_path, pipelines):
    """Thirty tiles of six slides, each of one class of the ten."""
    names, rng = list(pipelines[0].WORDS), np.random.default_rng(0)
    folder = tmp_path / "atlas"
    folder.mkdir()
    rows = [["image", "slide", *names]]
    for number in range(30):
        pixels = rng.integers(number % 10 * 20, 255, (224, 224, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append([f"{number}.png", f"s{number % 6}_he1", *np.eye(10, dtype=int)[number % 10]])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def test_from_tiles_to_a_calibrated_checkpoint_with_a_card(tmp_path, pipelines, atlas, monkeypatch):
    tile_encoder, tissue = pipelines
    config = tissue.CONFIG.model_copy(update={"epochs": 1, "batch_size": 16, "device": "cpu"})
    monkeypatch.setattr(tissue, "CONFIG", config)
    made = tmp_path / "made"
    found = tile_encoder.read_tile_set(atlas, tuple(tile_encoder.WORDS))
    for name, network in {"lite": LiteNetwork, "small": SmallNetwork}.items():
        recipe = tile_encoder.Recipe(
            partial(network, folded=False), FitSettings(steps=2, batch=1), tile_encoder.NOTE
        )
        tile_encoder.make(found, made / "fold0" / f"{name}.safetensors", recipe, 0)
    for number in range(1, 5):  # that each is another's does not matter here
        shutil.copytree(made / "fold0", made / f"fold{number}")
    score = {"protocol": "made up", "metric": "macro AP", "over": "tiles", "value": 0.5}
    (made / "scores.yaml").write_text(yaml.safe_dump({"scores": [score]}))
    tissue.main(atlas, made, tmp_path / "out.safetensors")
    info = read_info(tmp_path / "out.safetensors")
    assert info.names == config.classes
    assert info.palette.names == config.classes[:-1]
    assert len(info.calibration) == len(config.classes)
    assert info.weights == {}, "it needs no file but what ships"
    assert info.card.licence == "CC-BY-4.0"
    assert [score.value for score in info.card.scores] == [0.5]


def test_the_more_even_a_calibration_the_more_a_rare_class_wins(pipelines):
    _, tissue = pipelines
    rng = torch.Generator().manual_seed(0)
    classes = (torch.arange(2000) % 10 == 0).long()  # a tenth
    logits = torch.nn.functional.one_hot(classes, 2) + torch.randn(2000, 2, generator=rng)
    shares = []
    for evenness in (0.0, tissue.EVENNESS, 1.0):
        scale, offset = tissue.calibrate(logits, classes, evenness).T
        shares.append(float((logits * scale + offset).softmax(1)[:, 1].mean()))
    assert shares[0] == pytest.approx(0.1, abs=0.005), "as frequent as it is"
    assert shares[2] > shares[1] > shares[0] + 0.03
