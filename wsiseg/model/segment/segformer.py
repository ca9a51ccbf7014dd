"""SegFormer-B0 and B1 (Xie et al. 2021) as networks of the second stage."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsiseg.model.encoders.segformer import WIDTHS, MixTransformer, read_mix_transformer
from wsiseg.model.encoders.vit import normalize
from wsiseg.model.segment import SegmentNetwork, SegmentOutput

__all__ = ["SegformerB0", "SegformerB1"]

_STRIDES = (4, 2, 2, 2)
_WIDTH = 256  # of the decoder, in both sizes


class SegformerB0(SegmentNetwork):
    """3.7 million parameters. Attention sees the whole image, so there is no `context`.

    Parameters
    ----------
    channels
        Logits per cell.
    presence
        Whether it gives evidence of classes.
    """

    stride: ClassVar[int] = 4
    step: ClassVar[int] = 32
    context: ClassVar[int] = 0
    body_rate: ClassVar[float] = 0.2
    mean: ClassVar[tuple[float, float, float]] = (0.485, 0.456, 0.406)
    std: ClassVar[tuple[float, float, float] | None] = (0.229, 0.224, 0.225)
    spread: ClassVar[tuple[float, float, float]] = (0.229, 0.224, 0.225)
    size: ClassVar[str] = "b0"

    body: MixTransformer

    def __init__(self, channels: int, *, presence: bool = True) -> None:
        super().__init__()
        widths = WIDTHS[self.size]
        self.begun = ""
        self.body = MixTransformer(_STRIDES, widths)
        # One linear layer per level, then one over all: together a 1 x 1 convolution of each
        # level, which is cheaper before the maps are enlarged than after.
        self.levels = nn.ModuleList(nn.Conv2d(width, _WIDTH, 1) for width in widths)
        self.fuse = nn.ModuleList(nn.Conv2d(_WIDTH, _WIDTH, 1, bias=False) for _ in widths)
        self.norm = nn.BatchNorm2d(_WIDTH)
        self.head = nn.Conv2d(_WIDTH, channels, 1)
        self.presence = nn.Conv2d(widths[2], channels, 1) if presence else None

    @classmethod
    def begin(  # type: ignore[override]  # `begin_network` knows its options
        cls, channels: int, weights: str | Path | None = None
    ) -> SegformerB0:
        """Start the body from a file (usually ImageNet's), or at random without one."""
        network = cls(channels)
        if weights is not None:
            weight_file = read_mix_transformer(network.body, cls.size, weights)
            network.begun = f"mit-{cls.size}-{weight_file.sha256[:16]}"
        return network

    @classmethod
    def empty(cls, channels: int, *, presence: bool = True) -> SegformerB0:
        """Make a network to load tensors into, in evaluation mode."""
        return cls(channels, presence=presence).eval()

    def folded(self) -> SegformerB0:
        """Return a copy: its one batch norm is not worth merging."""
        return copy.deepcopy(self).eval()

    def forward(self, images: Tensor) -> SegmentOutput:
        """Logits at stride 4, evidence at stride 16."""
        maps = self.body(normalize(images, self.mean, self.spread))
        size = maps[0].shape[2:]
        fused = torch.zeros((), dtype=images.dtype, device=images.device)
        for level, fuse, features in zip(self.levels, self.fuse, maps, strict=True):
            part = fuse(level(features))
            if part.shape[2:] != size:
                part = F.interpolate(part, size, mode="bilinear", align_corners=False)
            fused = fused + part
        logits: Tensor = self.head(F.relu(self.norm(fused)))
        evidence = None if self.presence is None else self.presence(maps[2].detach())
        return SegmentOutput(logits, evidence)


class SegformerB1(SegformerB0):
    """13.7 million parameters."""

    size: ClassVar[str] = "b1"
