"""The foreground/background contrast of each preset: its regions, and where gradients go."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from wsiseg.config import TrainConfig
from wsiseg.model.construct import ConStruct
from wsiseg.model.encoders.vit import normalize
from wsiseg.model.losses import (
    MemoryBank,
    background_loss,
    contrast_loss,
    cut_regions,
    foreground_loss,
    region_masks,
    split_anchors,
    weigh_regions,
)

__all__ = ["contrast"]

Share = Callable[[int], float]
"""Maps this process's number of rows to its share of all processes'; all must call together."""


def _alone(rows: int) -> float:
    return float(rows > 0)


def contrast(
    model: ConStruct,
    images: Tensor,
    cams: Tensor,
    labels: Tensor,
    bank: MemoryBank,
    config: TrainConfig,
    share: Share = _alone,
) -> Tensor:
    """Compute this process's part of the contrastive loss; the bank takes in the backgrounds.

    A mean over pairs of a patch and a class that it shows; 0 if there are none.

    Parameters
    ----------
    images
        ``(B, 3, H, W)`` float RGB in [0, 1].
    cams
        ``(B, K, h, w)`` of the model for them.
    labels
        ``(B, K)``: 1 where the class is present.
    share
        Weight of this process's rows if several train together.
    """
    if model.preset == "wsiseg":
        small = F.avg_pool2d(images, config.contrast_shrink)
        return _ours(model, small, cams, labels, bank, share)
    part = share(int(labels.count_nonzero()))
    if not part:
        bank.push(bank.queue[:0])  # the other processes may have rows to push
        return cams.new_zeros((), dtype=torch.float32)
    if model.preset == "reference":
        return part * _reference(model, images, cams, labels, bank)
    return part * _paper(model, images, cams, labels, bank)


@torch.no_grad()
def _reference(
    model: ConStruct, images: Tensor, cams: Tensor, labels: Tensor, bank: MemoryBank
) -> Tensor:
    """No gradient at all: the released code only reports this loss."""
    maps, masks = region_masks(cams, images.shape[2:])
    return _weighted(model, images, maps, masks, labels, bank)


def _paper(
    model: ConStruct, images: Tensor, cams: Tensor, labels: Tensor, bank: MemoryBank
) -> Tensor:
    """Gradients reach prototypes and CAM; one threshold per class, and M within [0, 1]."""
    maps, masks = region_masks(cams, images.shape[2:], per_class=True)
    maps = maps / maps.amax((2, 3), keepdim=True).clamp_min(torch.finfo(maps.dtype).eps)
    return _weighted(model, images, maps, masks, labels, bank)


def _weighted(
    model: ConStruct, images: Tensor, maps: Tensor, masks: Tensor, labels: Tensor, bank: MemoryBank
) -> Tensor:
    encoder = model.encoder
    normal = normalize(images, encoder.region_mean, encoder.region_std)
    regions = weigh_regions(normal, maps, masks, labels)
    foreground, background = (encoder.embed_normalized(part) for part in regions[:2])
    return contrast_loss(foreground, background, regions.labels, model.anchors, bank)


def _ours(
    model: ConStruct,
    images: Tensor,
    cams: Tensor,
    labels: Tensor,
    bank: MemoryBank,
    share: Share,
) -> Tensor:
    """Regions are cut out of the image; gradients reach only the prototypes, which is cheap.

    One threshold per class. A class that the CAM finds nowhere has no region, and a region that is
    the whole patch has no background: no blank image may be taken for the class or its opposite.
    """
    maps, masks = region_masks(cams.detach(), images.shape[2:], per_class=True)
    present = (labels != 0) & (maps.amax((2, 3)) > 0)
    regions = cut_regions(images, masks, present, model.encoder.mean)
    bounded = ~masks.flatten(2).all(2)[torch.nonzero(present, as_tuple=True)]
    own, others = split_anchors(model.anchors, regions.labels)
    loss = cams.new_zeros((), dtype=torch.float32)
    if part := share(len(regions.labels)):
        foreground = model.encoder.embed_image(regions.foreground)
        loss = loss + part * foreground_loss(foreground, own, others, bank.queue)
    part = share(int(bounded.sum()))
    background = bank.queue[:0]
    if part:
        background = model.encoder.embed_image(regions.background[bounded])
        if len(model.anchors) > 1:  # a single class has no others
            loss = loss + part * background_loss(background, own[bounded], others[bounded])
    bank.push(background)
    return loss
