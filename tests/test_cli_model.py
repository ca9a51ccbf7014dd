import json
import re
import shlex

import pytest
import yaml
from typer.testing import CliRunner

from tests.model.test_card import WHOLE
from wsiseg.cli import app
from wsiseg.cli.model import models
from wsiseg.model.catalog import CATALOG, SHIPPED
from wsiseg.model.checkpoint import read_info

CARD = WHOLE | {"classes": {"Tumor": "invasive carcinoma"}}


def call(*args, width=100):
    return CliRunner().invoke(app, ["model", *map(str, args)], env={"COLUMNS": str(width)})


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    """A console measures its terminal once; here it has 100 columns."""
    from wsiseg.cli.consoles import stdout

    monkeypatch.setattr(stdout(), "_width", 100)


@pytest.fixture
def carded(tmp_path):
    card = tmp_path / "card.yaml"
    card.write_text(yaml.safe_dump(CARD))
    done = call("card", "tiny", card, "-o", tmp_path / "m.safetensors")
    assert done.exit_code == 0, done.output
    return tmp_path / "m.safetensors"


def test_every_command_is_documented():
    for command in models.registered_commands:
        assert command.callback.__doc__, command.callback.__name__


def test_the_list_fits_100_columns_and_its_commands_can_be_copied():
    done = call("list")
    assert done.exit_code == 0, done.output
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert max(map(len, lines)) <= 100
    for row in CATALOG:
        assert row.name in done.stdout
        assert not row.fetch or f"  {row.fetch}" in lines
        assert shlex.split(row.fetch)[:2] in ([], ["hf", "download"])


def test_the_list_as_json():
    rows = json.loads(call("list", "--json").stdout)
    assert [row["name"] for row in rows] == [row.name for row in CATALOG]
    assert [row["name"] for row in rows if row["ships"]] == list(SHIPPED)
    assert all(row["megabytes"] > 0 for row in rows)


def test_the_page_says_all_that_the_card_and_the_checkpoint_know(carded):
    done = call("show", carded)
    assert done.exit_code == 0, done.output
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert max(map(len, lines)) <= 100
    page = "\n".join(lines)
    for text in (
        "Two tissues", "Tells tumour from stroma.", "trained on synthetic tissue",
        "#c80000  Tumor         invasive carcinoma", "Stroma        unknown",
        "trained at 0.5 µm/px; may be used at: 0.4 to 0.6", "224 x 224 px", "tiny-1",
        read_info(carded).sha256, "preset wsiseg, epochs 12", "CC-BY-4.0", "A's authors",
        "drawn by hand", "deploy: IoU 0.700 [0.600, 0.800] over pixels", "does not occur",
        "by slide", "temperature", "0.040", "Frozen sections.",
        "Trying cards.", "https://example.org",
    ):  # fmt: skip
        assert text in page, text
    assert re.search(r"by class\n +Tumor +0\.800\n +Stroma +0\.600\n +background +does", page)
    assert re.search(r"0\.550 +0\.600 +100\b", page)
    assert re.search(r"0\.950 +0\.900 +300\b", page)


def test_a_file_without_a_card_says_so():
    page = call("show", "tiny").stdout
    assert "This file has no card" in page
    assert "licence     Apache-2.0" in page, "of what ships, the catalogue knows it"
    assert "Intended use" not in page


def test_an_empty_card_leaves_everything_unknown(tmp_path):
    (tmp_path / "card.yaml").write_text("")
    call("card", "tiny", tmp_path / "card.yaml", "-o", tmp_path / "m.safetensors")
    page = call("show", tmp_path / "m.safetensors").stdout
    for section in ("Data", "Labels", "Calibration", "Limits", "Intended use"):
        assert f"{section}\n  unknown\n" in page
    assert "Scores\n  none were measured\n" in page


def test_the_page_as_json(carded):
    told = json.loads(call("show", carded, "--json").stdout)
    assert told["file"] == str(carded)
    assert told["card"]["scores"][0]["by_slide"] == {"a": 0.7}
    assert told["checkpoint"]["sha256"] == read_info(carded).sha256
    assert "card" not in told["checkpoint"]
    assert json.loads(call("show", "tiny", "--json").stdout)["card"] is None


def test_brackets_in_a_card_are_no_markup(tmp_path):
    (tmp_path / "card.yaml").write_text("title: '[bold]x[/bold]'\nlimits: ['[red]']\n")
    call("card", "tiny", tmp_path / "card.yaml", "-o", tmp_path / "m.safetensors")
    page = call("show", tmp_path / "m.safetensors").stdout
    assert "[bold]x[/bold]" in page
    assert "-  [red]" in page


def test_what_is_elsewhere_is_shown_too():
    page = call("show", "conch").stdout
    for text in ("CC-BY-NC-ND-4.0", "hf download MahmoodLab/CONCH", "802 MB", "encoder=conch"):
        assert text in page
    assert json.loads(call("show", "conch", "--json").stdout)["kind"] == "encoder"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "nobody"], "nobody: no such checkpoint"),
        (["card", "nobody", "card.yaml", "-o", "m.safetensors"], "nobody: no such checkpoint"),
        (["card", "tiny", "nowhere.yaml", "-o", "m.safetensors"], "nowhere.yaml: cannot be read"),
        (["card", "conch", "card.yaml", "-o", "m.safetensors"], "conch: is a frozen encoder"),
    ],
)
def test_errors_are_one_line_and_exit_1(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call(*arguments)
    assert done.exit_code == 1
    assert message in done.output
    assert not list(tmp_path.iterdir())


def test_a_card_is_not_written_over_unless_told(carded, tmp_path):
    again = ("card", carded, tmp_path / "card.yaml", "-o", carded)
    refused = call(*again)
    assert refused.exit_code == 1
    assert "m.safetensors: already exists" in refused.output
    assert call(*again, "--overwrite").exit_code == 0


def test_where_the_encoder_is_has_one_spelling(tmp_path):
    """As with `train --set encoder_options.weights=PATH`."""
    (tmp_path / "p.csv").write_text("image,labels\n")
    for command in (["picture", "tiny", str(tmp_path)], ["evaluate", "tiny", str(tmp_path)]):
        done = CliRunner().invoke(app, [*command, "--set", "encoder_options.weights=x", "-o", "y"])
        assert done.exit_code == 1
        assert "TinyEncoder of encoder 'tiny' has no option 'weights'" in done.output
    done = CliRunner().invoke(app, ["picture", "tiny", "p", "--set", "device=cpu"])
    assert done.exit_code == 2
    assert "encoder_options.NAME=VALUE" in done.output
