"""The convolutional network of the encoder `small`: 1.2 million parameters."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsiseg.model.encoders.descriptors import MEAN, Descriptors
from wsiseg.model.encoders.half_network import JoinedNetwork, Unit

__all__ = ["SPREAD", "SmallNetwork"]

SPREAD = 0.22
"""Standard deviation of RGB about its mean."""


class _Residual(nn.Module):
    """Two 3 x 3 units with a shortcut (He et al. 2016)."""

    def __init__(self, channels: int, *, folded: bool) -> None:
        super().__init__()
        self.first = Unit(channels, channels, 3, folded=folded)
        self.second = Unit(channels, channels, 3, folded=folded, linear=True)

    def forward(self, maps: Tensor) -> Tensor:
        return F.relu(maps + self.second(self.first(maps)), inplace=True)


class SmallNetwork(JoinedNetwork):
    """Residual blocks, begun from nothing; the fixed filters run beside the first learned ones."""

    channels: ClassVar[tuple[int, int, int, int]] = (Descriptors.COUNT, 64, 128, 144)
    joined: ClassVar[tuple[int, int, int]] = (80, 144, 176)
    mean: Tensor

    def __init__(self, *, folded: bool = True) -> None:
        super().__init__(folded=folded)
        (_, eighth, _, _), (sixteenth, deep, context) = self.channels, self.joined
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        # In one step to an eighth: finer maps would take most of the time and add little.
        self.stem = Unit(3, eighth - Descriptors.COUNT, 7, 4, folded=folded)
        self.to16 = _stage(eighth, sixteenth, 1, folded=folded)
        self.to32 = _stage(sixteenth, deep, 1, folded=folded)
        self.to64 = _stage(deep, context, 1, folded=folded)
        self.lateral = self.make_lateral()

    def look(
        self, half: Tensor, deepest: int = 2, filtered: Tensor | None = None
    ) -> dict[int, Tensor]:
        """Compute the levels from 1 on, up to `deepest`, as `HalfNetwork` says."""
        filtered = self.filter(half) if filtered is None else filtered
        maps = {1: torch.cat([self.stem((half - self.mean) / SPREAD), filtered], 1)}
        if deepest > 1:
            sixteenth = self.to16(maps[1])
            maps[3] = self.to32(sixteenth)
            maps[2] = self.join(sixteenth, filtered, maps[3], self.to64(maps[3]))
        return maps


def _stage(inside: int, outside: int, blocks: int, *, folded: bool) -> nn.Sequential:
    """Halve the size, then apply residual blocks."""
    first = Unit(inside, outside, 3, 2, folded=folded)
    return nn.Sequential(first, *(_Residual(outside, folded=folded) for _ in range(blocks)))
