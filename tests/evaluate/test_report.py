import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.evaluate.golden import MINI_BCSS
from tests.test_config import CONFIGS
from wsiseg.annotations import PALETTES, Palette
from wsiseg.cli import app
from wsiseg.config import EvaluateConfig
from wsiseg.evaluate import (
    Evaluation,
    bootstrap_intervals,
    evaluate_checkpoint,
    format_table,
    score,
    write_report,
)
from wsiseg.model.checkpoint import read_info

PALETTE = PALETTES["bcss"]


def made_up(protocol="deploy") -> Evaluation:
    """Two images by hand; class 3 is nowhere."""
    confusions = np.zeros((2, 5, 5), np.int64)
    confusions[0, 0, 0], confusions[0, 0, 1] = 6, 2
    confusions[1, 1, 1], confusions[1, 2, 4], confusions[1, 4, 4] = 4, 1, 3
    there = np.array([[1, 0, 0, 0], [0, 1, 1, 0]], bool)
    return Evaluation(
        protocol=protocol, palette=PALETTE, names=("=a.png", "b.png"), confusions=confusions,
        true_classes=there, gates=np.array([[1, 1, 0, 0], [0, 1, 0, 0]], bool),
        scores=score(confusions.sum(0)), intervals=bootstrap_intervals(confusions, resamples=30),
        config=EvaluateConfig(resamples=30),
    )  # fmt: skip


def test_the_table_names_its_protocol_first():
    lines = format_table(made_up()).splitlines()
    assert lines[0].startswith("protocol deploy: classes let through by the model's own")
    assert lines[1] == (
        "2 patches; augmentations: 6; CRF: numba; 95% interval by 30 bootstraps over patches, as "
        "neither cases.csv nor their names give cases"
    )
    assert lines[3].split()[:2] == ["Tumor", "75.00"]
    assert lines[5].split()[:3] == ["Immune", "cells", "0.00"]
    assert lines[6].split() == ["Necrosis", "-", "-"]
    assert lines[-1] == "neither true nor predicted, so left out of the means: Necrosis"
    assert format_table(made_up("oracle")).startswith(
        "protocol oracle: classes let through by the t"
    )


def test_the_report_holds_the_same_numbers_thrice(tmp_path):
    evaluation = made_up()
    out = write_report(evaluation, read_info("tiny"), Path("/somewhere/private/set/test"), tmp_path)
    text = (out / "scores.json").read_text()
    facts = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert facts["protocol"] == "deploy"
    assert facts["data"] == "set/test"
    assert "private" not in text
    assert facts["miou"]["value"] == evaluation.scores.miou
    assert facts["classes"]["Necrosis"]["iou"] is None
    assert facts["absent"] == ["Necrosis"]
    assert facts["class_accuracy"] == {
        "Tumor": 1.0, "Stroma": 0.5, "Immune cells": 0.5, "Necrosis": 1.0
    }  # fmt: skip
    assert facts["confusion"] == evaluation.confusion.tolist()
    assert facts["checkpoint"]["sha256"] == read_info("tiny").sha256
    rows = list(csv.DictReader((out / "scores.csv").open()))
    assert {row["protocol"] for row in rows} == {"deploy"}
    assert float(rows[0]["value"]) == pytest.approx(evaluation.scores.miou, abs=1e-6)
    images = list(csv.DictReader((out / "images.csv").open()))
    assert [row["image"] for row in images] == ["'=a.png", "b.png"], "no formula"
    assert images[1]["classes_true"] == "Stroma;Immune cells"
    assert images[1]["classes_let_through"] == "Stroma"
    assert (images[0]["Tumor"], images[0]["Necrosis"]) == ("0.750000", "")
    assert (out / "table.txt").read_text() == format_table(evaluation) + "\n"
    counted = list(csv.reader((out / "confusion.csv").open()))
    assert counted[1] == ["Tumor", "6", "2", "0", "0", "0"]


def test_classes_called_like_a_column_have_one_of_their_own(tmp_path):
    names = ("miou", "background", "Stroma", "Tumor")
    palette = Palette(names, PALETTES["bcss"].colors)
    write_report(replace(made_up(), palette=palette), read_info("tiny"), Path("set"), tmp_path)
    (first, _) = csv.DictReader((tmp_path / "images.csv").open())
    assert first["class miou"] == "0.750000" != first["miou"]
    head, *_, last = csv.reader((tmp_path / "confusion.csv").open())
    assert head[1:] == ["miou", "class background", "Stroma", "Tumor", "background"]
    assert last[0] == "background"


def test_oracle_says_nothing_of_predicted_classes(tmp_path):
    write_report(made_up("oracle"), read_info("tiny"), Path("set"), tmp_path)
    assert json.loads((tmp_path / "scores.json").read_text())["class_accuracy"] is None


def test_from_the_command_line(tmp_path):
    arguments = [
        "evaluate", "tiny", str(MINI_BCSS), "-o", str(tmp_path / "out"), "--split", "val",
        "--set", "tta=1", "--set", "resamples=20", "--pictures", "1", "--save-labels",
        "--compare", str(CONFIGS / "published_bcss.yaml"),
    ]  # fmt: skip
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "protocol oracle:" in done.output
    assert "protocol deploy:" in done.output
    assert done.output.count("\nthis checkpoint ") == 4, "IoU and Dice, two protocols"
    assert done.output.count("ConStruct, full ") == 2, "beside the scores of its own protocol"
    config = EvaluateConfig(tta=1, resamples=20)
    again = evaluate_checkpoint("tiny", MINI_BCSS, config, split="valid")
    for evaluation in again:
        folder = tmp_path / "out" / evaluation.protocol
        assert (folder / "table.txt").read_text() == format_table(evaluation) + "\n"
        assert format_table(evaluation) in done.output
        names = sorted(path.name for path in (folder / "labels").iterdir())
        assert names == list(evaluation.names)
        labels = np.asarray(Image.open(folder / "labels" / names[0]))
        found = np.bincount(labels.ravel(), minlength=5)
        assert found.tolist() == evaluation.confusions[0].sum(0).tolist()
        for picture in ("predictions.png", "maps.png"):
            assert Image.open(folder / picture).size[0] > 3 * 224


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny", "nowhere"], "no img/ and mask/ in nowhere"),
        (["nowhere.safetensors", str(MINI_BCSS)], "no such checkpoint"),
        (["tiny", str(MINI_BCSS), "--set", "protocols=[both]"], "protocols.0 = 'both'"),
        (["tiny", str(MINI_BCSS), "--set", "encoder_options.weights=x"], "has no option 'weights'"),
    ],
)
def test_errors_are_one_line(arguments, message, tmp_path):
    done = CliRunner().invoke(app, ["evaluate", *arguments, "-o", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert message in done.output.replace("\n", "")
    assert not (tmp_path / "out").exists()
