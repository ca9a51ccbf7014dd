"""The convolutional network of the encoder `small`: 1.2 million parameters, strides 4 to 32.

In training each convolution is followed by a batch norm; `fold` merges the two, and the shipped
network has none. Colour is normalised inside, by a fixed mean: nothing depends on the whole image,
so a crop gives the same maps as the image, except near its border.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsiseg.model.encoders.descriptors import MEAN, Descriptors, mean_around

__all__ = ["CHANNELS", "SPREAD", "SmallNetwork", "Unit", "fold"]

CHANNELS = (28, 64, 128, 144)
"""Channels of the levels at strides 4, 8, 16 and 32."""
SPREAD = 0.22
"""Standard deviation of RGB about its mean."""
_SIXTEENTH, _CONTEXT = 80, 176


class Unit(nn.Module):
    """Convolution, batch norm unless `folded`, ReLU unless `linear`."""

    def __init__(
        self, inside: int, outside: int, size: int, stride: int = 1, *, folded: bool,
        linear: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, size, stride, size // 2, bias=folded)
        self.norm = None if folded else nn.BatchNorm2d(outside)
        self.linear = linear

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


class _Residual(nn.Module):
    """Two 3 x 3 units with a shortcut (He et al. 2016)."""

    def __init__(self, channels: int, *, folded: bool) -> None:
        super().__init__()
        self.first = Unit(channels, channels, 3, folded=folded)
        self.second = Unit(channels, channels, 3, folded=folded, linear=True)

    def forward(self, maps: Tensor) -> Tensor:
        return F.relu(maps + self.second(self.first(maps)), inplace=True)


class SmallNetwork(nn.Module):
    """``(B, 3, H, W)`` float RGB in [0, 1] to maps at strides 4, 8, 16 and 32.

    It works at half the resolution, 1 µm/px where tiles have 0.5: tissues differ there just as
    well, in a quarter of the time. Fixed stain and texture filters run beside the first learned
    ones. The level at stride 16 also takes in the coarser ones, so that its cells know their
    surroundings (a feature pyramid's top-down path, Lin et al. 2017).
    """

    mean: Tensor

    def __init__(self, *, folded: bool = True) -> None:
        super().__init__()
        _, eighth, fused, deep = CHANNELS
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.described = Descriptors()
        # In one step to an eighth: finer maps would take most of the time and add little.
        self.stem = Unit(3, eighth - Descriptors.COUNT, 7, 4, folded=folded)
        self.to16 = _stage(eighth, _SIXTEENTH, 1, folded=folded)
        self.to32 = _stage(_SIXTEENTH, deep, 1, folded=folded)
        self.to64 = _stage(deep, _CONTEXT, 1, folded=folded)
        self.lateral = nn.ModuleList(
            Unit(channels, fused, 1, folded=folded, linear=True)
            for channels in (_SIXTEENTH, 2 * Descriptors.COUNT, deep, _CONTEXT)
        )

    def forward(self, images: Tensor, levels: Sequence[int] = (0, 1, 2, 3)) -> list[Tensor]:
        """Maps of `levels`, in their order; what only others need is not computed."""
        maps = {0: self.described(images)} if 0 in levels else {}
        if max(levels) > 0:
            maps |= self.look(F.avg_pool2d(images, 2), max(levels))
        return [maps[level] for level in levels]

    def look(self, half: Tensor, deepest: int = 2) -> dict[int, Tensor]:
        """Compute the levels from 1 on, up to `deepest`, of images at half the resolution."""
        # What is fixed is always exact: logarithms, and small differences of large numbers.
        with torch.no_grad(), torch.autocast(half.device.type, enabled=False):
            filtered = self.described(half)
            summary = _summarise(filtered) if deepest > 1 else None
        maps = {1: torch.cat([self.stem((half - self.mean) / SPREAD), filtered], 1)}
        if summary is not None:
            sixteenth = self.to16(maps[1])
            maps[3] = self.to32(sixteenth)
            maps[2] = self._fuse([sixteenth, summary, maps[3], self.to64(maps[3])])
        return maps

    def _fuse(self, maps: Sequence[Tensor]) -> Tensor:
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


def _stage(inside: int, outside: int, blocks: int, *, folded: bool) -> nn.Sequential:
    """Halve the size, then apply residual blocks."""
    first = Unit(inside, outside, 3, 2, folded=folded)
    return nn.Sequential(first, *(_Residual(outside, folded=folded) for _ in range(blocks)))


@torch.no_grad()
def fold(network: SmallNetwork) -> SmallNetwork:
    """Return the same function without batch norms: each is merged into its convolution."""
    folded = SmallNetwork(folded=True)
    learned = {name: unit for name, unit in network.named_modules() if isinstance(unit, Unit)}
    for name, unit in folded.named_modules():
        if isinstance(unit, Unit):
            unit.take(learned[name])
    return folded.eval()
