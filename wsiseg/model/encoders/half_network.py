"""What the learned encoders' networks share: units, fixed filters, joining of coarse and fine maps.

In training each convolution is followed by a batch norm; `fold` merges the two, and what ships has
none. Colour is normalised inside, by fixed numbers: nothing depends on the whole image, so a crop
gives the same maps as the image, except near its border.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsiseg.model.encoders.descriptors import Descriptors, mean_around

__all__ = ["HalfNetwork", "JoinedNetwork", "Unit", "fold"]

_Network = TypeVar("_Network", bound="JoinedNetwork")


class Unit(nn.Module):
    """Convolution, batch norm unless `folded`, ReLU unless `linear`.

    A unit whose convolution wants no gradient keeps the statistics of its norm, too.
    """

    def __init__(
        self, inside: int, outside: int, size: int, stride: int = 1, *, folded: bool,
        linear: bool = False, groups: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, size, stride, size // 2, groups=groups, bias=folded)
        self.norm = None if folded else nn.BatchNorm2d(outside)
        self.linear = linear

    def train(self, mode: bool = True) -> Self:
        """Set training mode, or evaluation mode."""
        return super().train(mode and self.conv.weight.requires_grad)

    def take(self, learned: Unit) -> None:
        """Copy `learned` as it is in evaluation mode, its norm merged into the convolution."""
        norm, bias = learned.norm, self.conv.bias
        if norm is None or norm.running_var is None or norm.running_mean is None or bias is None:
            raise ValueError("only a unit with a norm can be merged into one without")
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        self.conv.weight.copy_(learned.conv.weight * scale[:, None, None, None])
        bias.copy_(norm.bias - norm.running_mean * scale)

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, C, H, W)`` maps."""
        maps = self.conv(maps)
        if self.norm is not None:
            maps = self.norm(maps)
        return maps if self.linear else F.relu(maps, inplace=True)


class HalfNetwork(nn.Module, ABC):
    """``(B, 3, H, W)`` float RGB in [0, 1] to maps at strides 4, 8, 16 and 32.

    It works at half the resolution, 1 µm/px where tiles have 0.5: tissues differ there just as
    well, in a quarter of the time. The finest level is that of the fixed stain and texture
    filters.
    """

    channels: ClassVar[tuple[int, int, int, int]]
    """Channels of the levels."""

    def __init__(self) -> None:
        super().__init__()
        self.described = Descriptors()

    def forward(self, images: Tensor, levels: Sequence[int] = (0, 1, 2, 3)) -> list[Tensor]:
        """Maps of `levels`, in their order; what only others need is not computed."""
        maps = {0: self.described(images)} if 0 in levels else {}
        if max(levels) > 0:
            maps |= self.look(F.avg_pool2d(images, 2), max(levels))
        return [maps[level] for level in levels]

    @abstractmethod
    def look(
        self, half: Tensor, deepest: int = 2, filtered: Tensor | None = None
    ) -> dict[int, Tensor]:
        """Compute the levels from 1 on, up to `deepest`, of images at half the resolution.

        `filtered` is what `filter` made of them, if that is known.
        """

    def filter(self, half: Tensor) -> Tensor:
        """Fixed filters at stride 8: always exact, being logarithms and small differences."""
        with torch.no_grad(), torch.autocast(half.device.type, enabled=False):
            filtered: Tensor = self.described(half)
        return filtered


class JoinedNetwork(HalfNetwork):
    """One whose level at stride 16 takes in the coarser ones and the filters.

    So its cells know their surroundings (a feature pyramid's top-down path, Lin et al. 2017).
    """

    joined: ClassVar[tuple[int, int, int]]
    """Channels of its own maps at strides 16, 32 and 64, which level 2 joins."""

    lateral: nn.ModuleList

    def __init__(self, *, folded: bool = True) -> None:
        super().__init__()
        self.folded = folded

    def make_lateral(self) -> nn.ModuleList:
        """Make the units that bring what level 2 joins to its channels."""
        sixteenth, deep, context = self.joined
        return nn.ModuleList(
            Unit(channels, self.channels[2], 1, folded=self.folded, linear=True)
            for channels in (sixteenth, 2 * Descriptors.COUNT, deep, context)
        )

    def join(self, sixteenth: Tensor, filtered: Tensor, deep: Tensor, context: Tensor) -> Tensor:
        """Level 2, of its own maps at strides 16, 32 and 64 and the filters at stride 8."""
        with torch.no_grad(), torch.autocast(filtered.device.type, enabled=False):
            summary = _summarise(filtered)
        maps = (sixteenth, summary, deep, context)
        near, fixed, *far = (unit(part) for unit, part in zip(self.lateral, maps, strict=True))
        near, (height, width) = near + fixed, near.shape[2:]
        for factor, part in zip((2, 4), far, strict=True):
            # By whole factors, then cut: the last cell may reach beyond the image.
            grown = F.interpolate(part, scale_factor=factor, mode="bilinear", align_corners=False)
            near = near + grown[:, :, :height, :width]
        return F.relu(near)


def _summarise(filtered: Tensor) -> Tensor:
    """Mean and spread of the fixed filters at cells twice as large, over 7 x 7 of these."""
    mean = mean_around(F.avg_pool2d(filtered, 2), 3)
    squares = mean_around(F.avg_pool2d(filtered.square(), 2), 3)
    spread = (squares - mean.square()).clamp_min(1e-4).sqrt()
    return torch.cat([mean, spread], 1)


@torch.no_grad()
def fold(network: _Network) -> _Network:
    """Return the same function without batch norms: each is merged into its convolution."""
    folded = type(network)(folded=True)
    learned = {name: unit for name, unit in network.named_modules() if isinstance(unit, Unit)}
    for name, unit in folded.named_modules():
        if isinstance(unit, Unit):
            unit.take(learned[name])
    return folded.eval()
