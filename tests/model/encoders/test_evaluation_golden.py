"""Inference and evaluation against the released code, from weight file to metrics."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.evaluate import golden
from tests.model import golden as encoders
from tests.model.golden import construct

pytest.importorskip("timm", reason="CONCH's vision tower is timm's: pip install 'wsiseg[encoders]'")

from PIL import Image

from wsiseg.annotations import BACKGROUND, PALETTES
from wsiseg.config import CrfConfig, EvaluateConfig
from wsiseg.evaluate import confusion_matrix, evaluate_checkpoint, score
from wsiseg.evaluate.protocols import label_maps, predict_maps
from wsiseg.model.cam import augmented_maps, scale_maps
from wsiseg.model.checkpoint import CheckpointInfo, save_checkpoint
from wsiseg.model.construct import ConStruct
from wsiseg.model.encoders import load_encoder
from wsiseg.model.released import load_released

pytestmark = pytest.mark.slow
CONFIG = EvaluateConfig(protocols=("oracle",), device="cpu", resamples=50)


@pytest.fixture(scope="module")
def model(conch_file: Path, tmp_path_factory: pytest.TempPathFactory) -> ConStruct:
    tensors = construct.make_tensors()
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("extra.")}
    path = tmp_path_factory.mktemp("released") / "best_cam.pth"
    torch.save({"model": tensors}, path)
    encoder = load_encoder("conch", weights=conch_file)
    return load_released(ConStruct(encoder, torch.zeros(4, 512), preset="reference"), path).eval()


@pytest.fixture(scope="module")
def checkpoint(model: ConStruct, tmp_path_factory: pytest.TempPathFactory) -> Path:
    palette = PALETTES["bcss"]
    info = CheckpointInfo(
        encoder="conch", identity=model.encoder.identity, names=palette.names,
        colors=palette.colors, prompts=palette.names, prototypes_per_class=1, mpp=0.25, tile=224,
        preset="reference", note="synthetic weights",
    )  # fmt: skip
    return save_checkpoint(model, info, tmp_path_factory.mktemp("made") / "m.safetensors")


def numbered(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Background as the released code numbers it."""
    return np.where(labels == BACKGROUND, 4, labels).astype(np.uint8)


def test_six_augmentations_and_what_follows(model: ConStruct) -> None:
    pixels, seen = encoders.array("224/images"), []
    truth = golden.array("224/masks")
    labels = torch.from_numpy(np.stack([(truth == c).any((1, 2)) for c in range(4)], 1))
    truth[truth == 4] = BACKGROUND

    @torch.inference_mode()
    def cams_of(images: Tensor) -> Tensor:
        seen.append(model(images).cams)
        return seen[-1]

    found = augmented_maps(cams_of, encoders.images("224"), model.encoder.mean)
    for number, cams in enumerate(seen):
        golden.check(f"224/tta{number}.cam", cams)
        maps = scale_maps(cams, (224, 224)) * labels[:, :, None, None]
        golden.check(f"224/tta{number}.map", maps.flip(3) if number >= 3 else maps)
    golden.check("224/fused", found.maps * labels[:, :, None, None])
    oracle = label_maps(found, pixels, truth, "oracle", model, CONFIG)
    assert torch.equal(oracle.gates, labels)
    golden.check("224/probs", oracle.probabilities)
    golden.check("224/bg", (1 - (found.maps * labels[:, :, None, None]).amax(1, True)) ** 10)
    golden.check("224/probs_argmax", oracle.probabilities.argmax(1))
    golden.check("224/crf_labels", numbered(oracle.labels))
    confusion = sum(
        confusion_matrix(true, labelled, 4)
        for true, labelled in zip(truth, oracle.labels, strict=True)
    )
    assert isinstance(confusion, np.ndarray)
    golden.check("224/confusion", confusion)
    scores = score(confusion)
    means = np.array([scores.miou, scores.mdice, scores.fwiou])
    np.testing.assert_allclose(means, golden.array("224/miou_mdice_fwiou"), rtol=0.01, atol=0.002)


def test_without_augmentation(model: ConStruct) -> None:
    config = CONFIG.model_copy(update={"tta": 1})
    pixels, truth = encoders.array("224/images"), golden.array("224/masks")
    truth[truth == 4] = BACKGROUND
    found = predict_maps(model, pixels, config)
    labels = label_maps(found, pixels, truth, "oracle", model, config).labels
    golden.check("224/crf_labels_no_tta", numbered(labels))


@pytest.mark.parametrize("split", ["test", "valid"])
def test_a_data_set_from_checkpoint_to_scores(
    checkpoint: Path, conch_file: Path, tmp_path: Path, split: str
) -> None:
    exact = find_spec("pydensecrf") is not None  # the CRF that the released code calls
    crf = CrfConfig(backend="pydensecrf" if exact else "numba")
    config = CONFIG.model_copy(update={"crf": crf})
    (evaluation,) = evaluate_checkpoint(
        checkpoint, golden.MINI_BCSS, config, tmp_path, split=split, save_labels=True,
        encoder_options={"weights": conch_file},
    )  # fmt: skip
    assert evaluation.true_classes.astype(int).tolist() == (
        golden.array(f"e2e/{split}.labels").tolist()
    )
    written = [
        np.asarray(Image.open(tmp_path / "oracle" / "labels" / name)) for name in evaluation.names
    ]
    golden.check(f"e2e/{split}.pred", np.stack(written))
    if exact:
        assert (np.stack(written) == golden.array(f"e2e/{split}.pred")).all()
    scores = evaluation.scores
    for name, values in (("iou", scores.iou), ("dice", scores.dice)):
        wanted = golden.array(f"e2e/{split}.{name}")[:4]
        np.testing.assert_allclose(values, wanted, rtol=0.01, atol=0.005)
    percent = 100 * np.array([scores.miou, scores.mdice, scores.fwiou])
    golden.check(f"e2e/{split}.miou_mdice_fwiou_percent", percent)
    assert (tmp_path / "oracle" / "table.txt").read_text().startswith("protocol oracle")
