"""Inference and evaluation against the released code, from weight file to metrics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tests.evaluate import golden
from tests.model import golden as encoders
from tests.model.golden import construct

pytest.importorskip("timm", reason="CONCH's vision tower is timm's: pip install 'wsiseg[encoders]'")

from wsiseg.annotations import BACKGROUND, PALETTES
from wsiseg.config import CrfConfig, EvaluateConfig, MasksConfig
from wsiseg.evaluate import (
    confusion_matrix,
    evaluate_model,
    load_masked_patches,
    score,
)
from wsiseg.evaluate.protocols import label_maps, predict_maps
from wsiseg.evaluate.run import Scored
from wsiseg.evaluate.scores import measure
from wsiseg.masks import write_masks
from wsiseg.model.cam import (
    MapsAndLogits,
    augmented_maps,
    class_probabilities,
    scale_maps,
)
from wsiseg.model.checkpoint import CheckpointInfo, read_info, save_checkpoint
from wsiseg.model.construct import ConStruct
from wsiseg.model.crf import refine
from wsiseg.model.encoders import Encoder
from wsiseg.model.released import load_released
from wsiseg.model.trained import TrainedModel, load_trained

pytestmark = pytest.mark.slow
CONFIG = EvaluateConfig(protocols=("oracle",), device="cpu", resamples=50)


@pytest.fixture(scope="module")
def model(
    conch_at: Callable[[int], Encoder], tmp_path_factory: pytest.TempPathFactory
) -> TrainedModel:
    """With the names and colours of the checkpoint that ships, which are BCSS's too."""
    tensors = construct.make_tensors()
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("extra.")}
    path = tmp_path_factory.mktemp("released") / "best_cam.pth"
    torch.save({"model": tensors}, path)
    empty = ConStruct(conch_at(224), torch.zeros(4, 512), preset="reference")
    return TrainedModel(load_released(empty, path).eval(), read_info("tiny"))


@pytest.fixture(scope="module")
def checkpoint(model: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a checkpoint of ours."""
    palette = PALETTES["bcss"]
    info = CheckpointInfo(
        encoder="conch", identity=model.model.encoder.identity, names=palette.names,
        colors=palette.colors, prompts=palette.names, prototypes_per_class=1, mpp=0.25, tile=224,
        preset="reference", note="synthetic weights",
    )  # fmt: skip
    return save_checkpoint(model.model, info, tmp_path_factory.mktemp("made") / "m.safetensors")


@pytest.fixture(scope="module")
def reloaded(checkpoint: Path, conch_file: Path) -> TrainedModel:
    """Read back from it."""
    return load_trained(checkpoint, {"weights": conch_file})


def numbered(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Background as the released code numbers it."""
    return np.where(labels == BACKGROUND, 4, labels).astype(np.uint8)


@golden.asserts("224/tta*", "224/fused", "224/bg", "224/probs*", "224/crf_labels*",
                "224/confusion", "224/iou_per_class", "224/dice_per_class",
                "224/miou_mdice_fwiou")  # fmt: skip
def test_six_augmentations_and_what_follows(model: TrainedModel) -> None:
    pixels, seen = golden.array("224/images"), []
    truth = golden.array("224/masks")
    truth[truth == 4] = BACKGROUND
    labels = torch.from_numpy(golden.array("224/labels"))[:, :, None, None]

    @torch.inference_mode()
    def cams_of(images: Tensor) -> Tensor:
        seen.append(model.cams(images))
        return seen[-1]

    found = augmented_maps(cams_of, encoders.images("224"), model.mean)
    for number, cams in enumerate(seen):
        golden.check(f"224/tta{number}.cam", cams)
        maps = scale_maps(cams, (224, 224)) * labels
        golden.check(f"224/tta{number}.map", maps.flip(3) if number >= 3 else maps)
    golden.check("224/fused", found.maps * labels)
    oracle = label_maps(found, pixels, truth, "oracle", model, CONFIG)
    golden.check("224/probs", oracle.probabilities)
    golden.check("224/bg", (1 - (found.maps * labels).amax(1, True)) ** 10)
    golden.check("224/probs_argmax", oracle.probabilities.argmax(1))
    golden.check("224/crf_labels", numbered(oracle.labels))
    whole = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    uncut = refine(oracle.probabilities, whole, CONFIG.crf).argmax(1)
    golden.check("224/crf_labels_original_image", uncut)
    check_scores(truth, oracle.labels)
    # The second is not changed, so it is what a single look gives.
    once = MapsAndLogits(scale_maps(seen[1], (224, 224)), seen[1].mean((2, 3)))
    plain = label_maps(once, pixels, truth, "oracle", model, CONFIG)
    golden.check("224/crf_labels_no_tta", numbered(plain.labels))


def check_scores(truth: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    confusion = sum(
        confusion_matrix(true, labelled, 4) for true, labelled in zip(truth, labels, strict=True)
    )
    assert isinstance(confusion, np.ndarray)
    golden.check("224/confusion", confusion)
    iou, dice, _ = measure(confusion)
    golden.check("224/iou_per_class", iou)
    golden.check("224/dice_per_class", dice)
    scores = score(confusion)
    golden.check("224/miou_mdice_fwiou", np.array([scores.miou, scores.mdice, scores.fwiou]))


@golden.asserts("e2e/*")
@pytest.mark.parametrize("case", ["e2e/test", "e2e/valid"])
def test_a_data_set_from_checkpoint_to_scores(reloaded: TrainedModel, case: str) -> None:
    seen = dict[int, Scored]()
    patches = load_masked_patches(golden.MINI_BCSS, reloaded.palette.names, case[4:])
    (evaluation,) = evaluate_model(
        reloaded, patches, CONFIG, visit=lambda one: seen.update({one.number: one})
    )
    scored = [seen[number] for number in range(len(patches))]
    golden.check(f"{case}.labels", evaluation.true_classes)
    golden.check(f"{case}.pred", numbered(np.stack([one.labels for one in scored])))
    gated = np.stack([one.maps * one.gates[:, None, None] for one in scored])
    golden.check(f"{case}.probs", class_probabilities(torch.from_numpy(gated)))
    iou, dice, _ = measure(evaluation.confusion)
    golden.check(f"{case}.iou", iou)
    golden.check(f"{case}.dice", dice)
    scores = evaluation.scores
    percent = 100 * np.array([scores.miou, scores.mdice, scores.fwiou])
    golden.check(f"{case}.miou_mdice_fwiou_percent", percent)


@golden.asserts("e2e/test.pred")
def test_pseudo_masks_by_the_given_labels(
    checkpoint: Path, conch_file: Path, tmp_path: Path
) -> None:
    names = PALETTES["bcss"].names
    patches = load_masked_patches(golden.MINI_BCSS, names, "test")
    shown = golden.array("e2e/test.labels").astype(bool)
    lines = ["image,labels"] + [
        f"{image.resolve()},{';'.join(np.array(names)[row])}"
        for image, row in zip(patches.images, shown, strict=True)
    ]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    rows = write_masks(
        checkpoint, tmp_path / "labels.csv", tmp_path / "out",
        MasksConfig(device="cpu", encoder_options={"weights": str(conch_file)}),
    )  # fmt: skip
    masks = [np.asarray(Image.open(row.mask)) for row in rows]
    golden.check("e2e/test.pred", np.stack(masks))


@golden.asserts("224/crf_q", "224/crf_labels", "e2e/*.pred", needs="pydensecrf")
def test_with_the_crf_of_the_library_every_label_is_the_released_codes(model: TrainedModel) -> None:
    pytest.importorskip("pydensecrf", reason="needs pip install 'wsiseg[pydensecrf]'")
    config = CONFIG.model_copy(update={"crf": CrfConfig(backend="pydensecrf")})
    pixels, truth = golden.array("224/images"), golden.array("224/masks")
    truth[truth == 4] = BACKGROUND
    oracle = label_maps(predict_maps(model, pixels, config), pixels, truth, "oracle", model, config)
    golden.check("224/crf_labels", numbered(oracle.labels))
    cut = torch.from_numpy(golden.array("224/crf_image")).permute(0, 3, 1, 2).contiguous()
    golden.check("224/crf_q", refine(oracle.probabilities, cut, config.crf))
    for split in ("test", "valid"):
        patches = load_masked_patches(golden.MINI_BCSS, PALETTES["bcss"].names, split)
        images, truth = patches.read(range(len(patches)))
        found = label_maps(
            predict_maps(model, images, config), images, truth, "oracle", model, config
        )
        golden.check(f"e2e/{split}.pred", numbered(found.labels))
        assert (numbered(found.labels) == golden.array(f"e2e/{split}.pred")).all()
