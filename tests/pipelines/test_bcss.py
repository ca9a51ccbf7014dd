"""The whole road from patch labels to a table, on the small BCSS-shaped set."""

import csv
import runpy
from pathlib import Path

import pytest

from wsiseg.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared/reference/mini_bcss"


def test_train_evaluate_table(tmp_path, capsys):
    if not DATA.is_dir():
        pytest.skip("shared/reference/mini_bcss is not beside the checkout")
    pipeline = runpy.run_path(str(ROOT / "pipelines/bcss.py"))
    config = pipeline["configure"](
        ROOT / "configs/train_tiny.yaml",
        ["epochs=8", "batch_size=2", "device=cpu", "preset=paper", "mpp=0.25"],
    )
    oracle, deploy = pipeline["run"](DATA, tmp_path, config)
    assert (oracle.protocol, deploy.protocol) == ("oracle", "deploy")
    assert oracle.confusion.sum() == deploy.confusion.sum() == oracle.confusions.shape[0] * 224**2
    printed = capsys.readouterr().out
    assert "train 16/16" in printed
    assert "oracle" in printed
    assert "deploy" in printed
    assert (tmp_path / "last.best.safetensors").exists()
    rows = list(csv.DictReader((tmp_path / "last.safetensors.csv").open()))
    losses = [float(row["total"]) for row in rows]
    assert sum(losses[-4:]) < sum(losses[:4])


def test_a_wrong_setting_is_named():
    pipeline = runpy.run_path(str(ROOT / "pipelines/bcss.py"))
    assert pipeline["configure"](ROOT / "configs/bcss.yaml", []).learning_rate == 2e-5
    with pytest.raises(ConfigError, match="epoch is not a setting; did you mean 'epochs'"):
        pipeline["configure"](ROOT / "configs/bcss.yaml", ["epoch=3"])
