from pathlib import Path

import pytest
from typer.testing import CliRunner

from wsiseg import doctor
from wsiseg.cli import app

run = CliRunner()


def without(monkeypatch, *gone):
    real = doctor.find_spec
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name in gone else real(name))


def found(name):
    return next(one for one in doctor.check_purposes() if one.name == name)


def test_a_machine_that_makes_maps_is_ready_and_exits_0():
    done = run.invoke(app, ["doctor"])
    assert done.exit_code == 0, done.output
    assert "ready for a first map: wsiseg annotate SLIDE -o out" in done.stdout
    for name in ("CONCH", "the GPU", "a cluster", "the viewer"):
        assert f"ready for {name}: " in done.stdout


@pytest.mark.parametrize(
    ("gone", "line", "code"),
    [
        ("torch", "not ready for a first map: torch not installed; pip install", 1),
        ("open_clip", "CONCH: open_clip not installed; pip install 'wsiseg[encoders]'", 0),
        ("uvicorn", "the viewer: uvicorn not installed; pip install 'wsiseg[view]'", 0),
        ("distributed", "cluster: distributed not installed; pip install 'wsiseg[cluster]'", 0),
    ],
)
def test_what_is_missing_is_named_with_its_command(monkeypatch, gone, line, code):
    without(monkeypatch, gone)
    done = run.invoke(app, ["doctor"])
    assert line in done.stdout
    assert done.exit_code == code


def test_conch_is_ready_once_its_weights_are_in_the_hubs_cache(monkeypatch, tmp_path):
    hub = pytest.importorskip("huggingface_hub", reason="the extra encoders is not installed")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    lacks = found("CONCH")
    assert "not in the hub's cache" in lacks.missing
    assert "hf download MahmoodLab/CONCH pytorch_model.bin" in lacks.remedy
    cached = Path(tmp_path, "models--MahmoodLab--CONCH")
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("abc")
    (cached / "snapshots" / "abc").mkdir(parents=True)
    (cached / "snapshots" / "abc" / "pytorch_model.bin").write_bytes(b"w")
    assert not found("CONCH").missing


def test_a_lost_model_file_is_no_first_map(monkeypatch, tmp_path):
    monkeypatch.setitem(doctor.SHIPPED, "tissue", tmp_path / "gone.safetensors")
    assert found("a first map").missing == "the file of model tissue"


@pytest.mark.parametrize(("compiles", "told"), [(True, False), (False, True)])
def test_a_gpu_without_a_compiler_is_told_what_its_crf_runs_in(monkeypatch, compiles, told):
    monkeypatch.setattr(doctor, "_gpu", lambda: ("GPU", "NVIDIA H100", ""))
    monkeypatch.setattr("wsiseg.model.crf.triton_compiles", lambda: compiles)
    gpu = found("the GPU")
    assert not gpu.missing
    assert "NVIDIA H100" in gpu.remedy
    assert ("plain torch, as Triton needs gcc or clang" in gpu.remedy) is told
