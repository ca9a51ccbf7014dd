import re

import pytest
from PIL import Image
from typer.testing import CliRunner

from wsiseg.cli import app
from wsiseg.model.checkpoint import read_info

SMALL = ["--set", "epochs=1", "--set", "batch_size=3", "--set", "device=cpu"]


def call(*args):
    return CliRunner().invoke(app, ["distill", *map(str, args)], env={"COLUMNS": "200"})


@pytest.fixture
def given(masked):
    return [masked / "img", "--masks", masked, *SMALL]


def test_a_dry_run_says_what_teaches_and_writes_nothing(given, tmp_path):
    result = call(*given, "-o", tmp_path / "m.safetensors", "--dry-run", "--validate", "0.34")
    assert result.exit_code == 0, result.output
    for line in (
        r"held out +2 windows of 1 case\(s\)", r"windows +4", "steps +2", "cases +2",
        r"pixels used +87\.5%", "network +ensemble, body from ensemble-",
        "labels +Pink .*, Blue .*, background", r"window +64 px at 0\.5 µm/px",
    ):  # fmt: skip
        assert re.search(line, result.output), (line, result.output)
    assert not list(tmp_path.iterdir())


def test_a_share_of_the_cases_chooses_the_epoch(given, tmp_path):
    out, card = tmp_path / "m.safetensors", tmp_path / "card.yaml"
    card.write_text("title: Fast\nclasses: {Pink: the first}\n")
    result = call(*given, "-o", out, "--validate", "0.34", "--card", card)
    assert result.exit_code == 0, result.output
    assert "best epoch by 2 windows of 1 case(s)" in result.output
    assert (tmp_path / "m.best.safetensors").exists()
    table = out.with_name("m.safetensors.validation.csv").read_text().splitlines()
    assert table[0] == "epoch,mean IoU with the first stage on the held-out windows"
    assert len(table) == 2
    assert read_info(out).card.title == "Fast"
    page = " ".join(CliRunner().invoke(app, ["model", "show", str(out)]).output.split())
    for text in ("segmentation network, trained on the labels of a first stage", "ensemble-",
                 "ab" * 9, "first stage, labels", "background: not shown in maps"):  # fmt: skip
        assert text in page, text
    picture = CliRunner().invoke(
        app, ["picture", str(out), str(next(given[0].iterdir())), "-o", str(tmp_path / "p")]
    )
    assert picture.exit_code == 0, picture.output
    assert [path.name[-9:] for path in (tmp_path / "p").iterdir()] == ["_cams.png"]


def test_a_dry_run_refuses_what_the_run_would_refuse(given, tmp_path):
    out = tmp_path / "m.safetensors"
    assert call(*given, "-o", out).exit_code == 0
    assert call(*given, "-o", out, "--dry-run").exit_code == 0, "it is finished"
    other = [*given, "--set", "learning_rate=0.1", "-o", out, "--dry-run"]
    result = call(*other)
    assert result.exit_code == 1
    assert "is the finished model of other settings" in result.output
    assert call(*other, "--overwrite").exit_code == 0
    for name, mode in (("img", "RGB"), ("mask", "L")):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.new(mode, (50, 50)).save(tmp_path / "set" / name / "0.png")
    result = call(*other, "--overwrite", "--validate", tmp_path / "set")
    assert result.exit_code == 1
    assert "50 x 50 px" in result.output


def test_a_folder_with_labels_chooses_too(given, masked, tmp_path):
    import shutil

    (tmp_path / "set").mkdir()
    for number, image in enumerate(sorted((masked / "img").iterdir())[:2]):
        shutil.copy(image, tmp_path / "set" / f"{number}[1{number}].png")
    out = tmp_path / "m.safetensors"
    result = call(*given, "-o", out, "--validate", tmp_path / "set")
    assert result.exit_code == 0, result.output
    assert "best epoch by 2 patches with labels" in result.output


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "network=x"], "network = 'x'"),
        (["--set", "scales=[2, 1]"], "scales = .*smallest first"),
        (["--set", "network_options.size=3"], "has no option 'size'; it takes weights"),
        (["--validate", "2"], "--validate 2: is neither a folder, a table, nor a share"),
        (["--set", "device=cuda:7"], "device 'cuda:7' is not available"),
    ],
)
def test_what_is_wrong_is_one_line(given, tmp_path, more, message):
    result = call(*given, "-o", tmp_path / "m.safetensors", *more)
    assert result.exit_code == 1
    assert re.search(message, result.output), result.output
    assert not list(tmp_path.iterdir())
