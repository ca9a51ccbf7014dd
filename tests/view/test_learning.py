"""The command that the page offers to learn from the corrections of a run."""

import json
import shlex

import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from tests.view.runs import make_run
from wsiseg.cli import app
from wsiseg.model.catalog import find_checkpoint
from wsiseg.view import open_run
from wsiseg.view.learning import learn_command


def record(root, checkpoint, time="20260101T000000", **more):
    """The record of a run, as `wsiseg annotate` leaves it."""
    path = root / f"runs/{time}_000000.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"config": {"predict": {"checkpoint": checkpoint, **more}}}))


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "my out")
    return tmp_path / "my out"


def test_paths_are_quoted_and_short_and_a_store_has_the_corrections_of_its_run(out, monkeypatch):
    command = learn_command(open_run(out))
    assert command == "wsiseg learn 'my out' --labels 'my out/corrections' -o my.safetensors"
    words = shlex.split(learn_command(open_run(out / "slides/one.zarr")))
    assert words[2:5] == ["my out/slides/one.zarr", "--labels", "my out/corrections"]
    monkeypatch.chdir(out / "slides")
    assert shlex.split(learn_command(open_run(out)))[2] == str(out)


def test_the_command_is_one_that_learn_takes(out):
    record(out, "tissue")
    words = shlex.split(learn_command(open_run(out)))
    assert words[-2:] == ["--from", "tissue"]
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 1, "a folder that is not there is no wrong use"
    assert "my out/corrections" in " ".join(result.output.split())


def begun_from(path, note):
    """A checkpoint whose note says what it began from."""
    from safetensors import safe_open

    source = find_checkpoint("tissue")
    with safe_open(source, "np") as file:
        facts = dict(file.metadata())
    plain = json.loads(facts["wsiseg"])
    facts["wsiseg"] = json.dumps(plain | {"note": note})
    save_file(load_file(source), path, facts)


@pytest.mark.parametrize(
    ("start", "known"), [("tissue", True), ("tissue.safetensors", True), ("other", False)]
)
def test_a_checkpoint_that_began_from_tissue_is_followed_by_tissue(out, start, known):
    begun_from(out.parent / "mine.safetensors", f"learned from labels, begun from {start}")
    record(out, "mine.safetensors")
    assert ("--from" in learn_command(open_run(out))) == known


@pytest.mark.parametrize("checkpoint", ["gone.safetensors", None, 7])
def test_what_is_not_known_to_be_tissue_is_left_out(out, checkpoint):
    record(out, "tissue")
    record(out, checkpoint, "20260102T000000")
    assert "--from" not in learn_command(open_run(out))
    (out / "runs/20260103T000000_000000.json").write_text("{")
    assert "--from" not in learn_command(open_run(out))
    record(out, "tissue", "20260104T000000", prompts="mine.toml")
    assert "--from" not in learn_command(open_run(out))
