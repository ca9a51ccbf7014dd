"""The `tiny` pair: fixed stain and texture filters, for trying the tool on a CPU.

No download and nothing learned: colour is split into stains (Ruifrok and Johnston 2001), each is
averaged at several scales, the absolute differences between scales measure texture, and a fixed
random layer mixes them all. All filters are boxes, so flips and quarter turns of an image only flip
and turn its features.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Philox
from torch import Tensor, nn

from wsiseg.model.encoders import LEVELS
from wsiseg.model.encoders.descriptors import Descriptors
from wsiseg.model.encoders.hash_text import hash_text
from wsiseg.model.encoders.regions import RegionEncoder

__all__ = ["TinyEncoder", "TinyTeacher"]


class TinyEncoder(RegionEncoder):
    """The student, an `Encoder`."""

    identity = "tiny-1"
    level_channels = (16, 64, 64, 64)
    embedding_dim = 128
    cam_level = 1  # as good as level 0 on synthetic slides, at a quarter of the time and memory
    guidance_levels = (1,)
    equivariant = True
    regions: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.descriptors = Descriptors()
        self.mixers = _mixers("student", self.level_channels)
        regions = _random("student.regions", self.embedding_dim, 2 * Descriptors.COUNT)
        self.register_buffer("regions", regions, persistent=False)

    @torch.no_grad()
    def pyramid(self, images: Tensor, levels: Sequence[int] = LEVELS) -> list[Tensor]:
        """Maps at strides 4, 8, 16 and 32."""
        maps = _halvings(self.descriptors(images), levels)
        return [torch.tanh(self.mixers[level](maps[level])) for level in levels]

    def embed(self, images: Tensor) -> Tensor:
        """``(B, 128)``: mean and spread of the descriptors."""
        described = self.descriptors(images).flatten(2)
        statistics = torch.cat([described.mean(2), described.std(2)], 1)
        return F.normalize(statistics @ self.regions.T, dim=1)

    @torch.no_grad()
    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """``(C, 128)``: signed hashes of words and of their three-letter pieces."""
        rows = torch.stack([hash_text(prompt, self.embedding_dim) for prompt in prompts])
        return F.normalize(rows, dim=1).to(self.regions.device)


class TinyTeacher(nn.Module):
    """The teacher, a `Teacher`: few channels, and only their positive part."""

    stage_channels = (8, 24, 24, 24)
    equivariant = True

    def __init__(self) -> None:
        super().__init__()
        self.descriptors = Descriptors()
        self.mixers = _mixers("teacher", self.stage_channels)

    @torch.no_grad()
    def stages(self, images: Tensor, levels: Sequence[int] = LEVELS) -> list[Tensor]:
        """Maps at strides 4, 8, 16 and 32."""
        maps = _halvings(self.descriptors(images), levels)
        return [F.relu(self.mixers[level](maps[level])) for level in levels]


class _Mixer(nn.Module):
    """A fixed random layer at every cell: ``(B, COUNT, h, w)`` to ``(B, channels, h, w)``."""

    weight: Tensor
    bias: Tensor

    def __init__(self, name: str, channels: int) -> None:
        super().__init__()
        weight = _random(f"{name}.weight", channels, Descriptors.COUNT)
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", _random(f"{name}.bias", channels, 1), persistent=False)

    def forward(self, described: Tensor) -> Tensor:
        batch, _, height, width = described.shape
        mixed = self.weight @ described.flatten(2) + self.bias
        return mixed.view(batch, -1, height, width)


def _mixers(name: str, channels: Sequence[int]) -> nn.ModuleList:
    return nn.ModuleList(_Mixer(f"{name}.{level}", count) for level, count in enumerate(channels))


def _halvings(maps: Tensor, levels: Sequence[int]) -> list[Tensor]:
    """Return `maps`, then halved again and again, down to the coarsest of `levels`."""
    halved = [maps]
    for _ in range(max(levels, default=0)):
        halved.append(F.avg_pool2d(halved[-1], 2))
    return halved


def _random(name: str, rows: int, columns: int) -> Tensor:
    """``(rows, columns)`` of variance ``1 / columns``: raw Philox bits, alike everywhere."""
    raw = Philox(key=zlib.crc32(name.encode())).random_raw(rows * columns)
    uniform = (raw >> np.uint64(40)).astype(np.float64) / 2**24
    values = (uniform - 0.5) * np.sqrt(12 / columns)
    return torch.from_numpy(values.astype(np.float32).reshape(rows, columns))
