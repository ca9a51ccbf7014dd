import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.model.segment.networks import INFO, make_segmenter
from wsiseg.cli import app
from wsiseg.errors import ConfigError, MissingDependencyError
from wsiseg.model.onnx import OUTPUTS, export_onnx
from wsiseg.model.segment.source import Segmenter, save_segmenter
from wsiseg.model.segment.unet import SmallSegmenter

pytest.importorskip("onnx", reason="pip install 'wsiseg[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'wsiseg[onnx]'")

PAIRS = ((1.5, 0.1), (0.5, -0.2), (1.0, 0.0))


@pytest.mark.parametrize("name", ["ensemble", "lite", "small", "segformer-b0"])
def test_onnx_gives_what_torch_does_for_any_batch_and_size(name, tmp_path):
    source = make_segmenter(name, replace(INFO, encoder=name, calibration=PAIRS))
    session = onnxruntime.InferenceSession(export_onnx(source, tmp_path / "m.onnx"))
    for shape in ((1, 3, 64, 96), (3, 3, 128, 64), (2, 3, 224, 224)):
        images = torch.rand(shape, generator=torch.Generator().manual_seed(shape[0]))
        shares, logits, evidence = session.run(None, {"image": images.numpy()})
        with torch.inference_mode():
            wanted, shown = source.network(images)
            scale, offset = torch.tensor(PAIRS).T[:, :, None, None]
            grown = torch.nn.functional.interpolate(
                wanted * scale + offset, shape[2:], mode="bilinear"
            )
        assert np.abs(logits - wanted.numpy()).max() < 1e-4
        assert np.abs(evidence - shown.numpy()).max() < 1e-4
        assert np.abs(shares - grown.softmax(1).numpy()).max() < 1e-4
    assert [output.name for output in session.get_outputs()] == list(OUTPUTS)
    said = json.loads(session.get_modelmeta().custom_metadata_map["wsiseg"])
    assert said["classes"] == ["A", "B", "background"]
    assert (said["mpp"], said["tile"], said["background"]) == (0.5, 224, 1)
    assert said["input"].startswith("RGB divided by 255, channels first; normalised inside")
    wsinfer = json.loads(session.get_modelmeta().custom_metadata_map["wsinfer"])
    assert wsinfer["transform"][-1]["arguments"] == {"mean": [0, 0, 0], "std": [1, 1, 1]}


def test_a_network_of_before_there_was_evidence_gives_none(tmp_path):
    network = SmallSegmenter.empty(3, presence=False)
    session = onnxruntime.InferenceSession(
        export_onnx(Segmenter(network, INFO), tmp_path / "m.onnx")
    )
    assert [output.name for output in session.get_outputs()] == ["probabilities", "logits"]
    said = json.loads(session.get_modelmeta().custom_metadata_map["wsiseg"])
    assert list(said["outputs"]) == ["logits", "probabilities"]


def test_the_command_writes_it_once(tmp_path):
    path = save_segmenter(make_segmenter("small").network, INFO, tmp_path / "m.safetensors")
    call = ["model", "export", str(path), "-o", str(tmp_path / "m.onnx")]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "m.onnx").exists()
    again = CliRunner().invoke(app, call)
    assert again.exit_code == 1
    assert "already exists; give another name, or say to overwrite it" in again.output
    wrong = CliRunner().invoke(app, ["model", "export", "tiny", "-o", str(tmp_path / "t.onnx")])
    assert wrong.exit_code == 1
    assert "is a construct of `wsiseg train`; a checkpoint of `wsiseg distill`" in wrong.output


def test_what_cannot_be_written_is_said(tmp_path, monkeypatch):
    source = make_segmenter("small")
    with pytest.raises(ConfigError, match=r"m\.txt: is written as ONNX; give it a name that ends"):
        export_onnx(source, tmp_path / "m.txt")
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'wsiseg\[onnx\]'"):
        export_onnx(source, tmp_path / "m.onnx")
