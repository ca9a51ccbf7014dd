"""Networks of the second stage: a U-Net decoder on `lite`, `small` or both, named as encoders are.

The encoder's maps at strides 8 and 16, of which the latter also takes in the coarser ones, are
joined from coarse to fine with one more map at stride 4 (Ronneberger et al. 2015). Nothing depends
on the whole image, so a crop gives the same logits as the image, except near its border.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsiseg.model.encoders.descriptors import MEAN
from wsiseg.model.encoders.ensemble import EnsembleEncoder
from wsiseg.model.encoders.half_network import HalfNetwork, Unit
from wsiseg.model.encoders.learned import TileEncoder
from wsiseg.model.encoders.lite import LiteEncoder
from wsiseg.model.encoders.small import SmallEncoder
from wsiseg.model.encoders.small_network import SPREAD
from wsiseg.model.segment import SegmentNetwork, SegmentOutput

__all__ = ["EnsembleSegmenter", "LiteSegmenter", "SmallSegmenter", "UNetSegmenter"]

_COARSE, _MIDDLE, _FINE, _EDGE = 48, 48, 24, 16


class UNetSegmenter(SegmentNetwork):
    """A tenth of a million parameters on an encoder's; some two thirds slower than it alone.

    Parameters
    ----------
    channels
        Logits per cell.
    folded
        Whether batch norms are merged into its units. The body has none in either form.
    presence
        Whether it gives evidence of classes.
    """

    encoder_type: ClassVar[type[TileEncoder] | type[EnsembleEncoder]]
    stride: ClassVar[int] = 4
    step: ClassVar[int] = TileEncoder.level_strides[-1]
    body_rate: ClassVar[float] = 0.0
    mean: ClassVar[tuple[float, float, float]] = MEAN
    std: ClassVar[tuple[float, float, float] | None] = None

    body: HalfNetwork
    centre: Tensor

    def __init__(self, channels: int, *, folded: bool = True, presence: bool = True) -> None:
        super().__init__()
        self.channels, self.begun = channels, ""
        self.body = self.encoder_type.network_type()
        _, eighth, fused, _ = self.body.channels
        self.register_buffer("centre", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.units = nn.ModuleDict(
            {
                "coarse": Unit(fused, _COARSE, 1, folded=folded),
                "middle": Unit(_COARSE + eighth, _MIDDLE, 3, folded=folded),
                "narrow": Unit(_MIDDLE, _FINE, 1, folded=folded),
                "edge": Unit(3, _EDGE, 3, 2, folded=folded),
                "fine": Unit(_FINE + _EDGE, _FINE, 3, folded=folded),
            }
        )
        self.head = nn.Conv2d(_FINE, channels, 1)
        self.presence = nn.Conv2d(fused, channels, 1) if presence else None

    @classmethod
    def begin(  # type: ignore[override]  # `begin_network` knows its options
        cls, channels: int, weights: str | Path | None = None
    ) -> Self:
        """Start the body from the shipped encoder, or from a file of one."""
        encoder, network = cls.encoder_type(weights), cls(channels, folded=False)
        network.body.load_state_dict(encoder.network.state_dict())
        network.begun = encoder.identity
        return network

    @classmethod
    def empty(cls, channels: int, *, presence: bool = True) -> Self:
        """Make a folded network, in evaluation mode."""
        return cls(channels, presence=presence).eval()

    @torch.no_grad()
    def folded(self) -> Self:
        """Return the same function without batch norms."""
        made = type(self)(self.channels, presence=self.presence is not None)
        made.body.load_state_dict(self.body.state_dict())
        made.head.load_state_dict(self.head.state_dict())
        if made.presence is not None and self.presence is not None:
            made.presence.load_state_dict(self.presence.state_dict())
        for name, unit in self.units.items():
            made.units[name].take(unit)  # type: ignore[operator]  # a Unit, which a dict forgets
        return made.to(self.head.weight.device).eval()

    def forward(self, images: Tensor) -> SegmentOutput:
        """Logits at stride 4, evidence at stride 16."""
        half = F.avg_pool2d(images, 2)
        maps, units = self.body.look(half), self.units
        wide = torch.cat([_double(units["coarse"](maps[2])), maps[1]], 1)
        wide = _double(units["narrow"](units["middle"](wide)))
        edges = units["edge"]((half - self.centre) / SPREAD)
        logits: Tensor = self.head(units["fine"](torch.cat([wide, edges], 1)))
        evidence = None if self.presence is None else self.presence(maps[2].detach())
        return SegmentOutput(logits, evidence)


class LiteSegmenter(UNetSegmenter):
    """On the encoder `lite`."""

    encoder_type = LiteEncoder
    # Its cells are finer than CAMs and show more of what lies beyond a margin.
    context = 2 * LiteEncoder.context


class SmallSegmenter(UNetSegmenter):
    """On the encoder `small`."""

    encoder_type = SmallEncoder
    context = 2 * SmallEncoder.context


class EnsembleSegmenter(UNetSegmenter):
    """On the encoder `ensemble`."""

    encoder_type = EnsembleEncoder
    context = 2 * EnsembleEncoder.context


def _double(maps: Tensor) -> Tensor:
    return F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)
