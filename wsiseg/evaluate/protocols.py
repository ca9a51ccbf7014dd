"""The protocols for scoring a model, never mixed: with the true classes given, and without.

`oracle` is what the released ConStruct code does, in validation, in its final test and so in the
paper's tables: a class that is not in the mask cannot be predicted, because its map is multiplied
by the true label. `deploy` lets through what the model itself predicts, as on a slide that nobody
has labelled; `slide` weighs each class by how likely it is with the patches around it, as
``stitch.gate: context`` does. All three otherwise follow the paper's inference: six augmentations,
each map scaled to its own range, the background that they leave, and the dense CRF patch by patch.
(`wsiseg annotate` differs: it blends neighbouring tiles and takes the background from the slide's
tissue.)
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
from wsiseg.config import CrfConfig, EvaluateConfig, InferenceConfig
from wsiseg.model.cam import MapsAndLogits, augmented_maps, class_probabilities
from wsiseg.model.crf import refine_labels
from wsiseg.model.device import to_images
from wsiseg.model.source import CamSource

__all__ = [
    "Prediction",
    "Protocol",
    "label_maps",
    "predict_maps",
    "predicted_gates",
    "present",
    "refine_maps",
    "restore_images",
    "truncate_image",
]

Protocol = Literal["oracle", "deploy", "slide"]


class Prediction(NamedTuple):
    """Result of a protocol for a batch of patches."""

    gates: Tensor
    """``(B, K)`` bool: the classes let through."""
    probabilities: Tensor
    """``(B, K + 1, H, W)`` float32 before the CRF, background last."""
    labels: NDArray[np.uint8]
    """``(B, H, W)``: the most probable class after the CRF, `BACKGROUND` outside."""


def predict_maps(
    source: CamSource, images: NDArray[np.uint8], config: InferenceConfig
) -> MapsAndLogits:
    """Compute ungated maps and logits, channel by channel, of ``(B, H, W, 3)`` RGB patches.

    They stay on the source's device.
    """
    batch = to_images(images, source.device)
    with torch.inference_mode():
        return augmented_maps(
            source.look,
            batch,
            source.mean,
            config.tta,
            source.pool,
            channels=source.channels,
            exclusive=source.exclusive,
            calibration=source.calibration,
        )


def label_maps(
    outputs: MapsAndLogits,
    images: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    protocol: Protocol,
    source: CamSource,
    config: EvaluateConfig,
    context: NDArray[np.float32] | None = None,
) -> Prediction:
    """Gate the maps of `predict_maps` as the protocol says, and refine them.

    Parameters
    ----------
    truth
        ``(B, H, W)`` uint8 labels; only `oracle` uses them, for the classes present.
    context
        ``(B, K)``: how much each class weighs in `slide`, from `wsiseg.evaluate.places`.
    """
    classes = len(source.palette)
    if protocol == "deploy":
        gates = predicted_gates(outputs, classes, config.gate_threshold)
        return refine_maps(outputs, gates, images, config.crf)
    if protocol == "slide":
        if context is None:
            raise ValueError("protocol slide needs what the slide's context lets through")
        return refine_maps(outputs, torch.from_numpy(context), images, config.crf)
    gates = torch.from_numpy(present(truth, classes))
    return refine_maps(outputs, gates, restore_images(images, source), config.crf)


def predicted_gates(outputs: MapsAndLogits, classes: int, threshold: float) -> Tensor:
    """``(B, K)`` bool: the classes for which the sigmoid of the logit reaches `threshold`."""
    return outputs.logits[:, :classes] >= math.log(threshold / (1 - threshold))


def refine_maps(
    outputs: MapsAndLogits,
    gates: Tensor,
    images: NDArray[np.uint8],
    crf: CrfConfig | None,
) -> Prediction:
    """Gate the maps, and label every pixel.

    Parameters
    ----------
    gates
        ``(B, K)`` bool, or weights in [0, 1].
    images
        ``(B, H, W, 3)`` RGB for the CRF.
    crf
        None: label each pixel with its most probable class.
    """
    gates = gates.to(outputs.maps.device)
    weigh = _share if outputs.exclusive else _weigh
    probabilities = weigh(outputs.maps, gates)
    if crf is None:
        labels = _most_probable(probabilities).cpu().numpy()
    else:
        labels = _refine(probabilities, images, crf).cpu().numpy()
    labels[labels == probabilities.shape[1] - 1] = BACKGROUND
    return Prediction(gates > 0, probabilities, np.asarray(labels))


def _most_probable(probabilities: Tensor) -> Tensor:
    """``(B, H, W)`` uint8, the first of equals: as argmax, which takes ten times as long."""
    best = probabilities[:, 0].clone()
    labels = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    for k in range(1, probabilities.shape[1]):
        labels.masked_fill_(probabilities[:, k] > best, k)
        torch.maximum(best, probabilities[:, k], out=best)
    return labels


def _share(maps: Tensor, gates: Tensor) -> Tensor:
    """`_weigh` for maps that are probabilities: classes that are not let through give theirs up."""
    classes = gates.shape[1]
    out = maps.new_empty((len(maps), classes + 1, *maps.shape[2:]))
    shares, background = out[:, :classes], out[:, classes:]
    torch.mul(maps[:, :classes], gates[:, :, None, None], out=shares)
    total = shares.sum(1, keepdim=True) + maps[:, classes:].sum(1, keepdim=True)
    shares /= total.clamp_min_(torch.finfo(maps.dtype).tiny)
    torch.sub(1, shares.sum(1, keepdim=True), out=background)
    return out.clamp_(0, 1)


def _weigh(maps: Tensor, gates: Tensor) -> Tensor:
    """``(B, K + 1, H, W)`` probabilities from maps ``(B, channels, H, W)`` and gates ``(B, K)``.

    Kinds of background, the channels after the K classes, are always let through; their
    probabilities add to the background.
    """
    classes = gates.shape[1]
    gated = maps[:, :classes] * gates[:, :, None, None]
    shares = class_probabilities(torch.cat([gated, maps[:, classes:]], 1))
    background = shares[:, classes:].sum(1, keepdim=True)
    return torch.cat([shares[:, :classes], background], 1)


def present(truth: NDArray[np.uint8], classes: int) -> NDArray[np.bool_]:
    """``(B, K)``: the classes present in each mask of ``(B, H, W)``."""
    return np.stack([(truth == label).any((1, 2)) for label in range(classes)], 1)


def restore_images(images: NDArray[np.uint8], source: CamSource) -> NDArray[np.uint8]:
    """Return the images that the released code gives its CRF: see `truncate_image`."""
    if source.std is None:  # no normalisation to be undone
        return images
    return truncate_image(images, source.mean, source.std)


def truncate_image(
    images: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]
) -> NDArray[np.uint8]:
    """Normalise images, restore them and truncate to integers, as the released code's CRF input.

    Two values in five come out one too low, as float32 falls just short of the original number.
    """
    centre, spread = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    white = np.float32(255)
    # The order of these roundings, which is the released code's, decides what is truncated.
    normal = (images.astype(np.float32) - centre * white) * np.reciprocal(spread * white)
    restored = (normal * spread + centre) * white
    return np.asarray(restored.clip(0, 255).astype(np.uint8))


def _refine(probabilities: Tensor, images: NDArray[np.uint8], crf: CrfConfig) -> Tensor:
    values = probabilities.cpu() if crf.backend in ("numba", "pydensecrf") else probabilities
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return refine_labels(values, pixels.to(values.device), crf)
