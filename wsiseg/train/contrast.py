"""The foreground/background contrast of each preset: what its regions are, what it teaches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wsiseg.config import TrainConfig
from wsiseg.model.construct import ConStruct
from wsiseg.model.encoders.vit import normalize
from wsiseg.model.losses import (
    MemoryBank,
    contrast_loss,
    cut_regions,
    region_masks,
    weigh_regions,
)

__all__ = ["contrast"]


def contrast(
    model: ConStruct,
    images: Tensor,
    cams: Tensor,
    labels: Tensor,
    bank: MemoryBank,
    config: TrainConfig,
) -> Tensor:
    """The contrastive loss of a batch, a scalar; the bank takes in its backgrounds.

    Parameters
    ----------
    images
        ``(B, 3, H, W)`` float RGB in [0, 1].
    cams
        ``(B, K, h, w)`` of the model for them.
    labels
        ``(B, K)``: 1 where the class shows; at least one does.
    """
    if model.preset == "reference":
        return _reference(model, images, cams, labels, bank)
    if model.preset == "paper":
        return _paper(model, images, cams, labels, bank)
    return _ours(model, F.avg_pool2d(images, config.contrast_shrink), cams, labels, bank)


@torch.no_grad()
def _reference(
    model: ConStruct, images: Tensor, cams: Tensor, labels: Tensor, bank: MemoryBank
) -> Tensor:
    """No gradient at all: the released code only reports this loss (construct.md section 5)."""
    maps, masks = region_masks(cams, images.shape[2:])
    return _weighted(model, images, maps, masks, labels, bank)


def _paper(
    model: ConStruct, images: Tensor, cams: Tensor, labels: Tensor, bank: MemoryBank
) -> Tensor:
    """Gradients reach prototypes and CAM; one threshold a class, and M within [0, 1]."""
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
    model: ConStruct, images: Tensor, cams: Tensor, labels: Tensor, bank: MemoryBank
) -> Tensor:
    """Regions cut out as they look; gradients reach the prototypes, cheaply, not the CAM."""
    _, masks = region_masks(cams.detach(), images.shape[2:])
    regions = cut_regions(images, masks, labels, model.encoder.mean)
    foreground, background = (model.encoder.embed_image(part) for part in regions[:2])
    return contrast_loss(foreground, background, regions.labels, model.anchors, bank)
