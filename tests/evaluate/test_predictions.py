import csv
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.evaluate.golden import MINI_BCSS
from wsiseg.annotations import PALETTES
from wsiseg.cli import app
from wsiseg.config import EvaluateConfig
from wsiseg.errors import DataError
from wsiseg.evaluate import (
    evaluate_checkpoint,
    evaluate_predictions,
    load_masked_patches,
    score,
)

PALETTE = PALETTES["bcss"]
CONFIG = EvaluateConfig(tta=1, device="cpu", batch_size=4, resamples=50)


def masks(folder, change=lambda numbers: numbers, suffix=".png"):
    """Predictions: the true masks, changed."""
    folder.mkdir()
    patches = load_masked_patches(MINI_BCSS, PALETTE.names)
    for path in patches.masks:
        numbers = change(np.asarray(Image.open(path)).copy())
        Image.fromarray(numbers.astype(np.uint8)).save(folder / f"{path.stem}{suffix}")
    return folder


def swap(numbers):
    """Tumour and stroma taken for each other in the upper half."""
    half = numbers[:112].copy()
    numbers[:112] = np.array([1, 0, 2, 3, 4])[half]
    return numbers


def evaluate(folder, **changes):
    return evaluate_predictions(folder, MINI_BCSS, PALETTE, "deploy", CONFIG, **changes)


def test_the_truth_scores_a_hundred(tmp_path):
    found = evaluate(masks(tmp_path / "truth", suffix=".tif"))
    assert found.scores.miou == found.scores.mdice == 1
    assert (found.gates == found.true_classes).all()
    assert found.intervals.miou == (1, 1)


def test_our_own_labels_score_as_the_model_does(tmp_path):
    plain = evaluate_checkpoint("tiny", MINI_BCSS, CONFIG, tmp_path, save_labels=True)
    for one in plain:
        again = evaluate_predictions(
            tmp_path / one.protocol / "labels", MINI_BCSS, PALETTE, one.protocol, CONFIG
        )
        assert (again.confusions == one.confusions).all()
        assert again.scores == one.scores
        assert again.intervals == one.intervals


def test_numbers_say_what_is_what(tmp_path):
    other = masks(tmp_path / "other", lambda n: np.array([10, 20, 30, 40, 0])[n])
    numbers = dict(zip((10, 20, 30, 40, 0), (*PALETTE.names, None), strict=True))
    assert evaluate(other, numbers=numbers).scores.miou == 1
    with pytest.raises(DataError, match=r"3 problem\(s\).*\n.*holds the numbers .*--numbers"):
        evaluate(other)
    with pytest.raises(DataError, match="'Fat', which is none of Tumor"):
        evaluate(other, numbers={1: "Fat"})


def test_a_class_may_have_two_numbers(tmp_path):
    halves = masks(
        tmp_path / "halves", lambda n: np.where((n == 0) & (np.indices(n.shape)[0] < 112), 9, n)
    )
    numbers = {**dict(enumerate(PALETTE.names)), 4: None, 9: "Tumor"}
    assert evaluate(halves, numbers=numbers).scores.miou == 1


def test_every_problem_is_listed(tmp_path):
    folder = masks(tmp_path / "bad")
    first, second, third, fourth = sorted(folder.iterdir())
    first.rename(folder / "stray.png")
    with pytest.raises(DataError) as caught:
        evaluate(folder)
    assert f"{first.stem}: has no prediction" in str(caught.value)
    assert "stray.png: has no patch" in str(caught.value)
    (folder / "stray.png").rename(first)
    Image.new("L", (100, 90)).save(second)
    Image.new("RGB", (224, 224)).save(third)
    fourth.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"3 problem\(s\)") as caught:
        evaluate(folder)
    for part in ("is 100 x 90 px, the patch's mask 224 x 224", "is in colours", fourth.name):
        assert part in str(caught.value)
    with pytest.raises(DataError, match="is not a folder"):
        evaluate(tmp_path / "nothing")


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments), "--workers", "1"])


def test_two_folders_on_the_command_line(tmp_path):
    good, bad = masks(tmp_path / "good"), masks(tmp_path / "bad", swap)
    both = ("--predictions", good, "--predictions", bad, "--protocol", "deploy")
    done = run(MINI_BCSS, *both, "-o", tmp_path / "out", "--set", "resamples=99")
    assert done.exit_code == 0, done.output
    assert "minus" in done.output
    assert "p = 0.02 " in done.output, "none of 99 draws turns the sign"
    said = json.loads((tmp_path / "out" / "bad" / "scores.json").read_text())
    assert said["predictions"] == f"{tmp_path.name}/bad"
    assert "checkpoint" not in said
    assert said["miou"]["value"] == pytest.approx(evaluate(bad).scores.miou)
    with (tmp_path / "out" / "bad" / "images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    alone = [score(one).miou for one in evaluate(bad).confusions]
    assert [float(row["miou"] or "nan") for row in rows] == pytest.approx(
        alone, nan_ok=True, abs=1e-5
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((MINI_BCSS, "--predictions", "{}"), "--protocol oracle"),
        (("tiny", MINI_BCSS, "--predictions", "{}", "--protocol", "deploy"), "only the folder"),
        ((MINI_BCSS, "--predictions", "{}", "--protocol", "deploy", "--numbers", "1:A"), "1=Tumor"),
        (("tiny",), "give a checkpoint and"),
    ],
)  # fmt: skip
def test_options_that_contradict(arguments, message, tmp_path):
    folder = masks(tmp_path / "masks")
    done = run(*(str(argument).format(folder) for argument in arguments), "-o", tmp_path / "out")
    assert done.exit_code == 2
    assert message in " ".join(done.output.split()).replace("│ ", "")
    assert not (tmp_path / "out").exists()


def test_classes_of_a_settings_file(tmp_path):
    folder = masks(tmp_path / "masks")
    (tmp_path / "c.yaml").write_text(
        "classes: [Tumor, Stroma, Immune cells, Dead, Glass]\nbackground: [Glass]\n"
    )
    given = ("--predictions", folder, "--protocol", "oracle", "--classes", tmp_path / "c.yaml")
    done = run(MINI_BCSS, *given, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "Dead" in done.output
    assert "Glass" not in done.output
