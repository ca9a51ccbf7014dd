"""CONCH and SegFormer in `wsiseg train`: the real code path, with deterministic weights."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from tests.model.golden import construct

pytest.importorskip("timm", reason="CONCH's vision tower is timm's: pip install 'wsiseg[encoders]'")

from wsiseg.config import TrainConfig, load_config
from wsiseg.model.checkpoint import load_checkpoint
from wsiseg.model.encoders.conch_text import write_texts
from wsiseg.model.weights import find_weights
from wsiseg.train import describe_training, load_patches, train_model

ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT.parent / "shared" / "reference" / "mini_bcss"


@pytest.mark.slow
def test_bcss_settings_train_on_the_small_set(
    conch_file: Path, mit_files: dict[str, Path], tmp_path: Path
) -> None:
    if not DATA.is_dir():
        pytest.skip("shared/reference/mini_bcss is not beside the checkout")
    given = load_config(ROOT / "configs" / "bcss.yaml", TrainConfig)
    embedded = construct.array("224/prototypes_text_init")
    sha256 = find_weights(conch_file, ()).sha256
    texts = write_texts(given.prompts, embedded, tmp_path / "texts.safetensors", sha256)
    config = given.model_copy(
        update={
            "encoder_options": {"weights": str(conch_file), "texts": str(texts)},
            "teacher_options": {"weights": str(mit_files["official"])},
            "epochs": 4, "batch_size": 4, "learning_rate": 1e-3, "device": "cpu",
            "contrast_weight": 0.0,  # no gradient in this preset, and most of the time
        }
    )  # fmt: skip
    patches = load_patches(DATA, config.classes)
    facts = describe_training(patches, config)
    assert (facts["patches"], facts["steps"]) == (4, 4)
    assert (facts["marked parameters"], facts["learning parameters"]) == (6_084_609, 2_714_625)
    out = train_model(patches, config, tmp_path / "m.safetensors")
    rows = list(csv.DictReader((tmp_path / "m.safetensors.csv").open()))
    totals = [float(row["total"]) for row in rows]
    assert totals[-1] < 0.8 * totals[0]
    model, info = load_checkpoint(out, {"weights": conch_file})
    assert info.prompts == given.prompts
    assert {part: facts["source"] for part, facts in info.weights.items()} == {
        "encoder": "pytorch_model.bin", "teacher": "mit_b1.pth",
    }  # fmt: skip
    assert str(tmp_path).encode() not in out.read_bytes()
    moved = (model.prototypes - embedded).abs().max().item()
    assert 1e-4 < moved < 1e-2
    assert torch.isfinite(model.l_fc(model.bank)).all()
