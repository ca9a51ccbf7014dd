"""What our own encoders share: strides, statistics of H&E, and how regions reach `embed`."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from wsiseg.model.encoders.descriptors import MEAN
from wsiseg.model.encoders.vit import denormalize

__all__ = ["RegionEncoder"]


class RegionEncoder(nn.Module, ABC):
    """The part of an `Encoder` that embeds whole images, given `embed`."""

    level_strides = (4, 8, 16, 32)
    mean = MEAN
    region_mean = MEAN
    region_std = (0.2, 0.2, 0.2)

    @torch.no_grad()
    def embed_image(self, images: Tensor) -> Tensor:
        """``(B, E)``, L2-normalised, of images RGB in [0, 1]."""
        return self.embed(images)

    def embed_normalized(self, images: Tensor) -> Tensor:
        """`embed_image` of images normalised by `region_mean` and `region_std`, with gradients."""
        return self.embed(denormalize(images, self.region_mean, self.region_std))

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """`embed_image` with gradients."""
