"""The convolutional network of the encoder `lite`: 1.9 million parameters.

Its blocks are those of EfficientNet-Lite0 (Tan and Le 2019, Liu 2020) up to number 13, so that a
training may begin with weights learned from photographs.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsiseg.model.encoders.descriptors import Descriptors
from wsiseg.model.encoders.half_network import JoinedNetwork, Unit

__all__ = ["LiteNetwork"]

_STEM = 32
_STAGES = (  # channels, size of the kernels, stride, expansion, blocks
    (16, 3, 1, 1, 1),
    (24, 3, 2, 6, 2),
    (40, 5, 2, 6, 2),
    (80, 3, 2, 6, 3),
    (112, 5, 1, 6, 3),
    (192, 5, 2, 6, 3),  # of four; a seventh stage is left out, too
)
_EIGHTH, _SIXTEENTH, _DEEP = 2, 4, 10
"""Last blocks at strides 8, 16 and 32 of an image, half that of what the network sees."""


class _Convolution(Unit):
    """A unit with ReLU6, and with the padding of the published network."""

    def __init__(
        self, inside: int, outside: int, size: int, stride: int = 1, *, folded: bool,
        groups: int = 1, linear: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(inside, outside, size, stride, folded=folded, linear=linear, groups=groups)
        if stride > 1:
            self.conv.padding = (0, 0)  # see `pad`
        if self.norm is not None:
            self.norm.eps = 1e-3
        before = (size - stride) // 2
        # As published where a size is even; where it is odd, cells stay where even ones would be.
        self.pad = (before, size - 1 - before) * 2 if stride > 1 else None

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, C, H, W)`` maps, to ``ceil`` of their size over the stride."""
        maps = self.conv(maps if self.pad is None else F.pad(maps, self.pad))
        if self.norm is not None:
            maps = self.norm(maps)
        return maps if self.linear else F.relu6(maps, inplace=True)


class _Block(nn.Module):
    """An inverted residual (Sandler et al. 2018): expand, filter each channel, project."""

    def __init__(
        self, inside: int, outside: int, size: int, stride: int, expansion: int, *, folded: bool
    ) -> None:
        super().__init__()
        wide = inside * expansion
        self.expand = _Convolution(inside, wide, 1, folded=folded) if expansion > 1 else None
        self.depthwise = _Convolution(wide, wide, size, stride, groups=wide, folded=folded)
        self.project = _Convolution(wide, outside, 1, folded=folded, linear=True)
        self.shortcut = stride == 1 and inside == outside

    def forward(self, maps: Tensor) -> Tensor:
        wide = maps if self.expand is None else self.expand(maps)
        found: Tensor = self.project(self.depthwise(wide))
        return maps + found if self.shortcut else found


class LiteNetwork(JoinedNetwork):
    """Inverted residuals, begun from weights that photographs taught."""

    channels: ClassVar[tuple[int, int, int, int]] = (Descriptors.COUNT, 24, 128, 112)
    joined: ClassVar[tuple[int, int, int]] = (40, 112, 192)

    def __init__(self, *, folded: bool = True) -> None:
        super().__init__(folded=folded)
        self.stem = _Convolution(3, _STEM, 3, 2, folded=folded)
        self.blocks, inside = nn.ModuleList(), _STEM
        for outside, size, stride, expansion, count in _STAGES:
            for own in (stride, *[1] * (count - 1)):
                self.blocks.append(_Block(inside, outside, size, own, expansion, folded=folded))
                inside = outside
        self.lateral = self.make_lateral()
        self.to(memory_format=torch.channels_last)  # 1 x 1 and depthwise kernels are faster so

    def look(
        self, half: Tensor, deepest: int = 2, filtered: Tensor | None = None
    ) -> dict[int, Tensor]:
        """Compute the levels from 1 on, up to `deepest`, as `HalfNetwork` says."""
        maps, seen = self.stem((half * 255 - 127) / 128), list[Tensor]()
        for block in self.blocks if deepest > 1 else self.blocks[: _EIGHTH + 1]:
            maps = block(maps)
            seen.append(maps)
        if deepest == 1:
            return {1: maps}
        filtered = self.filter(half) if filtered is None else filtered
        joined = self.join(seen[_SIXTEENTH], filtered, seen[_DEEP], maps)
        return {1: seen[_EIGHTH], 2: joined, 3: seen[_DEEP]}
