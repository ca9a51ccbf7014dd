"""The two ways to score a model, never mixed: with the true classes given, and without.

`oracle` is what the released ConStruct code does, in validation, in its final test and so in the
paper's tables: a class that is not in the mask cannot be predicted, because its map is multiplied
by the true label. `deploy` lets through what the model itself predicts, as on a slide that nobody
has labelled. All else is the paper's inference in both: six augmentations, each map scaled to its
own range, the background that they leave, and the dense CRF patch by patch. (`wsiseg annotate`
differs from both: it blends neighbouring tiles and takes the background from the slide's tissue.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsiseg.annotations import BACKGROUND
from wsiseg.config import EvaluateConfig
from wsiseg.model.cam import MapsAndLogits, augmented_maps, class_probabilities
from wsiseg.model.construct import ConStruct
from wsiseg.model.crf import refine

__all__ = ["Prediction", "Protocol", "label_maps", "predict_maps", "present", "truncate_image"]

Protocol = Literal["oracle", "deploy"]


class Prediction(NamedTuple):
    """What a protocol makes of a batch of patches."""

    gates: Tensor
    """``(B, K)`` bool: the classes let through."""
    probabilities: Tensor
    """``(B, K + 1, H, W)`` float32 before the CRF, background last."""
    labels: NDArray[np.uint8]
    """``(B, H, W)``: the most probable class after the CRF, `BACKGROUND` outside."""


def predict_maps(
    model: ConStruct, images: NDArray[np.uint8], config: EvaluateConfig
) -> MapsAndLogits:
    """Ungated maps and class logits of ``(B, H, W, 3)`` RGB patches, on the model's device."""
    device = model.logit_scale.device
    batch = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        return augmented_maps(lambda x: model(x).cams, batch, model.encoder.mean, config.tta)


def label_maps(
    found: MapsAndLogits,
    images: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    protocol: Protocol,
    model: ConStruct,
    config: EvaluateConfig,
) -> Prediction:
    """Gate the maps of `predict_maps` as the protocol says, and refine them.

    Parameters
    ----------
    truth
        ``(B, H, W)`` uint8 labels; `oracle` takes the classes from it, `deploy` does not look.
    """
    if protocol == "oracle":
        gates = torch.from_numpy(present(truth, model.classes)).to(found.maps.device)
        std: Sequence[float] | None = getattr(model.encoder, "std", None)
        if std is not None:  # else the encoder has no normalisation to be undone
            images = truncate_image(images, model.encoder.mean, std)
    else:
        threshold = math.log(config.gate_threshold / (1 - config.gate_threshold))
        gates = found.logits >= threshold  # sigmoid(logit) >= gate_threshold
    probabilities = class_probabilities(found.maps * gates[:, :, None, None])
    return Prediction(gates, probabilities, _refine(probabilities, images, config))


def present(truth: NDArray[np.uint8], classes: int) -> NDArray[np.bool_]:
    """``(B, K)``: the classes that occur in each mask of ``(B, H, W)``."""
    return np.stack([(truth == label).any((1, 2)) for label in range(classes)], 1)


def truncate_image(
    images: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]
) -> NDArray[np.uint8]:
    """The image that the released code gives its CRF: normalised, restored, cut to integers.

    Two values in five come out one too low, as float32 falls short of the number it began as.
    """
    centre, spread = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    white = np.float32(255)
    # The order of these roundings decides what is cut off: it is the released code's.
    normal = (images.astype(np.float32) - centre * white) * np.reciprocal(spread * white)
    restored = (normal * spread + centre) * white
    return np.asarray(restored.clip(0, 255).astype(np.uint8))


def _refine(
    probabilities: Tensor, images: NDArray[np.uint8], config: EvaluateConfig
) -> NDArray[np.uint8]:
    on_cpu = config.crf.backend in ("numba", "pydensecrf")
    values = probabilities.cpu() if on_cpu else probabilities
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    refined = refine(values, pixels.to(values.device), config.crf)
    labels = refined.argmax(1).to(torch.uint8).cpu().numpy()
    labels[labels == probabilities.shape[1] - 1] = BACKGROUND
    return np.asarray(labels)
