import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tests.model.test_released import make, released_state
from wsiseg.cli import app
from wsiseg.model.checkpoint import load_checkpoint


def run(*arguments):
    done = CliRunner().invoke(app, ["model", "import", *map(str, arguments)])
    return done.exit_code, done.output.replace("\n", "")


TINY = ("--set", "encoder=tiny")


def test_a_released_checkpoint_becomes_one_of_ours(tmp_path):
    source = make(seed=1)
    torch.save({"model": released_state(source)}, tmp_path / "best_cam.pth")
    out = tmp_path / "x.safetensors"
    settings = ("--classes", "one, two", *TINY, "--set", "mpp=0.5")
    code, text = run(tmp_path / "best_cam.pth", "-o", out, *settings)
    assert code == 0, text
    model, info = load_checkpoint(out)
    assert (info.names, info.preset, info.mpp) == (("one", "two"), "reference", 0.5)
    assert info.note.startswith("imported from best_cam.pth of the released code (sha256 ")
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(source(images).cams, model(images).cams)
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "p.png")
    drawn = CliRunner().invoke(
        app, ["picture", str(out), str(tmp_path / "p.png"), "-o", str(tmp_path), "--kind", "cams"]
    )
    assert drawn.exit_code == 0, drawn.output
    before = out.read_bytes()
    code, text = run(tmp_path / "best_cam.pth", "-o", out, *settings)
    assert code == 1
    assert "already exists" in text
    assert run(tmp_path / "best_cam.pth", "-o", out, *settings, "--overwrite")[0] == 0
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--classes", "one,two,three"), "holds 2 prototypes, one per class; 3 classes are named"),
        (("--classes", "one,two", "--set", "preset=paper"), "make it with preset 'reference'"),
        (("--classes", "one,two", "--set", "mpp=-1"), "mpp"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, options, message):
    torch.save({"model": released_state(make())}, tmp_path / "best_cam.pth")
    code, text = run(tmp_path / "best_cam.pth", "-o", tmp_path / "x.safetensors", *TINY, *options)
    assert code == 1, text
    assert message in text
    assert not (tmp_path / "x.safetensors").exists()


def test_another_file_is_no_released_checkpoint(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "a.pth")
    code, text = run(tmp_path / "a.pth", "-o", tmp_path / "x", "--classes", "a,b", *TINY)
    assert code == 1
    assert "it holds no prototypes" in text


@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_as_checkpoint_names_the_command(tmp_path, zipped):
    path = tmp_path / "best_cam.pth"
    torch.save({"model": released_state(make())}, path, _use_new_zipfile_serialization=zipped)
    done = CliRunner().invoke(app, ["model", "show", str(path)])
    assert done.exit_code == 1
    assert f"wsiseg model import {path} -o NAME.safetensors --classes A,B" in done.output
