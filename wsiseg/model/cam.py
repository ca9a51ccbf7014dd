"""Class activation maps: cosine of features and prototypes, and their test-time augmentation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wsiseg.config import Pooling

__all__ = [
    "BRIGHTNESS",
    "MapsAndLogits",
    "augmented_cams",
    "augmented_maps",
    "class_probabilities",
    "cosine_cams",
    "known_shares",
    "pool_cams",
    "prototype_cosines",
    "scale_maps",
    "share_maps",
]

BRIGHTNESS = (0.9, 1.0, 1.1)
"""Factors of the paper's six-fold augmentation, each without and with a horizontal flip."""

_BACKGROUND_POWER = 10

CamsOf = Callable[[Tensor], Tensor]
Pool = Callable[[Tensor], Tensor]


def cosine_cams(features: Tensor, prototypes: Tensor, scale: Tensor, classes: int) -> Tensor:
    """Cosine of every cell with every class's nearest prototype, times `scale`.

    Only the nearest counts, as in the released ConStruct: a cell looks like one kind of the class,
    and the CAM stays a cosine. A smooth maximum would grow with k where all of them respond. PBIP
    (Tang et al. 2025) weighs them by a softmax instead.

    Parameters
    ----------
    features, prototypes, classes
        As in `prototype_cosines`.
    scale
        The logit scale, a scalar.

    Returns
    -------
    ``(B, K, h, w)`` float.
    """
    return scale * prototype_cosines(features, prototypes, classes).amax(2)


def prototype_cosines(features: Tensor, prototypes: Tensor, classes: int) -> Tensor:
    """Cosine of every cell with every prototype.

    Parameters
    ----------
    features
        ``(B, D, h, w)`` float, not necessarily normalised.
    prototypes
        ``(K * k, D)`` float, L2-normalised; rows ``c * k .. c * k + k - 1`` belong to class c.
    classes
        K.

    Returns
    -------
    ``(B, K, k, h, w)`` float.
    """
    cosine = torch.einsum("bdhw,pd->bphw", F.normalize(features, dim=1), prototypes)
    batch, _, height, width = cosine.shape
    return cosine.view(batch, classes, -1, height, width)


def pool_cams(cams: Tensor, pooling: Pooling = "mean", known: Tensor | None = None) -> Tensor:
    """``(B, K, h, w)`` CAMs to ``(B, K)`` class logits: their mean, or a smooth maximum.

    The smooth maximum is ``log mean exp`` (Pinheiro and Collobert 2015): of a constant CAM it is
    the constant; where a share s of the cells has one logit and the others are far below, it is
    that logit plus ``log s``. Half precision is widened to float32 first.

    With `known` ``(B, c, c)`` bool, at least one cell of each image true, every CAM cell is
    weighted by the share of it that is known.
    """
    cams = cams.to(torch.promote_types(cams.dtype, torch.float32))
    if known is not None:
        return _pool_known(cams.flatten(2), pooling, known_shares(known, cams.shape[2:]))
    if pooling == "mean":
        return cams.mean((2, 3))
    flat = cams.flatten(2)
    return flat.logsumexp(2) - math.log(flat.shape[2])


def known_shares(known: Tensor, size: Sequence[int]) -> Tensor:
    """``(B, 1, h * w)`` float32: the share of each CAM cell that is known."""
    return F.adaptive_avg_pool2d(known[:, None].float(), (size[0], size[1])).flatten(2)


def _pool_known(flat: Tensor, pooling: Pooling, shares: Tensor) -> Tensor:
    if pooling == "mean":
        return (flat * shares).sum(2) / shares.sum(2)
    return (flat + shares.log()).logsumexp(2) - shares.sum(2).log()


def augmented_cams(
    cams_of: CamsOf, images: Tensor, mean: Sequence[float], augmentations: int
) -> Tensor:
    """Mean CAM logits over 1 (none) or the paper's 6 augmentations of `images`.

    Parameters
    ----------
    cams_of
        Gives CAMs ``(B, K, h, w)`` of images.
    images
        ``(B, 3, H, W)`` float RGB in [0, 1].
    """
    total: Tensor | None = None
    for cams, flip in _augment(cams_of, images, mean, augmentations):
        cams = cams.flip(3) if flip else cams
        total = cams if total is None else total + cams
    assert total is not None
    return total / augmentations


class MapsAndLogits(NamedTuple):
    """Output of the paper's inference, before the maps are gated by the classes present."""

    maps: Tensor
    """``(B, K, H, W)`` in [0, 1]: each class on its own scale, whether or not it is present."""
    logits: Tensor
    """``(B, K)`` class logits, the mean over the augmentations."""
    exclusive: bool = False
    """Whether the maps are probabilities, as `CamSource.exclusive` has it; they sum to 1."""


def augmented_maps(
    cams_of: CamsOf,
    images: Tensor,
    mean: Sequence[float],
    augmentations: int = 6,
    pool: Pool = pool_cams,
    *,
    channels: int | None = None,
    exclusive: bool = False,
    calibration: Sequence[tuple[float, float]] = (),
) -> MapsAndLogits:
    """The paper's fused maps at image size: each augmentation's scaled map, then their mean.

    The class labels, by which the released code multiplies each map before the mean, are left to
    the caller: as they are 0 or 1, multiplying the mean gives the same bits.

    Parameters
    ----------
    cams_of
        Gives CAMs ``(B, K, h, w)`` of images.
    images
        ``(B, 3, H, W)`` float RGB in [0, 1].
    mean
        Colour about which brightness is scaled: the mean of the encoder's normalisation.
    augmentations
        1 (none) or 6.
    pool
        Gives class logits ``(B, K)`` of CAMs; by default their mean.
    channels
        K, if `cams_of` gives further channels, which only `pool` reads.
    exclusive
        Whether maps are the softmax over the channels, not each scaled to its own range.
    calibration
        Scale and offset of each channel before that softmax; or empty.
    """
    scale = partial(share_maps, calibration=calibration) if exclusive else scale_maps
    passes = _augment(cams_of, images, mean, augmentations)
    seen, _ = next(passes)  # the first is not mirrored
    maps, logits = scale(seen[:, :channels], images.shape[2:]), pool(seen)
    for seen, flip in passes:
        scaled = scale(seen[:, :channels], images.shape[2:])
        maps += scaled.flip(3) if flip else scaled
        logits = logits + pool(seen)
    if augmentations > 1:  # the maps are large: spare them a division by 1
        maps, logits = maps.div_(augmentations), logits / augmentations
    return MapsAndLogits(maps, logits, exclusive)


def scale_maps(cams: Tensor, size: Sequence[int]) -> Tensor:
    """Scale the positive part of ``(B, K, h, w)`` CAMs by its range, to ``(B, K, H, W)`` in [0, 1].

    Bilinear with aligned corners, as the released code does. A map without activation is 0.
    """
    maps = F.relu(cams)
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    maps = (maps - low) / (high - low + 1e-6)
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=True)


def share_maps(
    cams: Tensor, size: Sequence[int], calibration: Sequence[tuple[float, float]] = ()
) -> Tensor:
    """Softmax of ``(B, K, h, w)`` logits, enlarged to ``(B, K, H, W)`` as stitching does.

    With `calibration`, the scale and offset of each channel come first.
    """
    if calibration:
        scale, offset = cams.new_tensor(calibration).T[:, :, None, None]
        cams = cams * scale + offset
    enlarged = F.interpolate(cams.float(), tuple(size), mode="bilinear", align_corners=False)
    return enlarged.softmax(1)


def class_probabilities(maps: Tensor) -> Tensor:
    """``(B, K + 1, H, W)``: softmax over the gated `maps` and the background they leave.

    Background, the last, is ``(1 - max)^10``. Without a temperature, every probability lies between
    0.1 and 0.4 (K = 4): the dense CRF decides.

    Parameters
    ----------
    maps
        ``(B, K, H, W)`` in [0, 1], 0 for classes that are gated out.
    """
    background = (1 - maps.amax(1, keepdim=True)) ** _BACKGROUND_POWER
    return torch.cat([maps, background], 1).softmax(1)


def _augment(
    cams_of: CamsOf, images: Tensor, mean: Sequence[float], augmentations: int
) -> Iterator[tuple[Tensor, bool]]:
    """Yield the CAMs of each augmented image, and whether they are mirrored.

    A brightness factor multiplies the *normalised* image, as in the released code; in [0, 1] this
    is a change of contrast about the encoder's `mean`.
    """
    if augmentations == 1:
        yield cams_of(images), False
        return
    centre = images.new_tensor(mean)[:, None, None]
    for flip in (False, True):
        for factor in BRIGHTNESS:
            changed = centre + factor * (images - centre)
            yield cams_of(changed.flip(3) if flip else changed), flip
