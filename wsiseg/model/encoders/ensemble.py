"""The encoder `ensemble`: `lite` and `small` side by side, their features joined.

One began from photographs and the other from nothing, so they err on other tissue.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from wsiseg.errors import CheckpointError
from wsiseg.model.encoders import LEVELS
from wsiseg.model.encoders.learned import TileEncoder
from wsiseg.model.encoders.lite import LiteEncoder
from wsiseg.model.encoders.regions import RegionEncoder
from wsiseg.model.encoders.small import SmallEncoder
from wsiseg.model.weights import WeightFile

__all__ = ["EnsembleEncoder"]


class EnsembleEncoder(RegionEncoder):
    """The student, an `Encoder`: the maps of its members, one's channels after the other's.

    The fixed filters, which both have, are computed once.

    Parameters
    ----------
    weights
        A folder, or a repository of the hub, that holds lite.safetensors and small.safetensors;
        None is what ships with wsiseg.

    Raises
    ------
    CheckpointError
        If one of them is missing or not one of these.
    """

    context = max(LiteEncoder.context, SmallEncoder.context)
    cam_level = TileEncoder.cam_level
    guidance_levels = TileEncoder.guidance_levels
    equivariant = TileEncoder.equivariant

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        if weights is not None and Path(weights).is_file():
            raise CheckpointError(
                f"{weights}: give the folder that holds lite.safetensors and small.safetensors"
            )
        self.lite, self.small = LiteEncoder(weights), SmallEncoder(weights)
        members = self.members
        joined = hashlib.sha256("\n".join(member.identity for member in members).encode())
        self.identity = f"ensemble-{joined.hexdigest()[:16]}"
        self.weights = _describe([member.weights for member in members if member.weights])
        channels = [member.level_channels for member in members]
        fixed, *learned = zip(*channels, strict=True)
        self.level_channels = (fixed[0], *map(sum, learned))
        self.embedding_dim = self.level_channels[self.cam_level]

    @property
    def members(self) -> tuple[TileEncoder, ...]:
        """The encoders that see each image."""
        return self.lite, self.small

    @torch.no_grad()
    def pyramid(self, images: Tensor, levels: Sequence[int] = LEVELS) -> list[Tensor]:
        """Maps at strides 4, 8, 16 and 32."""
        maps = {0: self.lite.network.described(images)} if 0 in levels else {}
        if max(levels) > 0:
            each = self._look(images, max(levels))
            maps |= {level: torch.cat([own[level] for own in each], 1) for level in each[0]}
        return [maps[level] for level in levels]

    def _look(self, images: Tensor, deepest: int) -> list[dict[int, Tensor]]:
        """Compute the members' levels from 1 on, up to `deepest`."""
        half = F.avg_pool2d(images, 2)
        filtered = self.lite.network.filter(half)
        return [member.network.look(half, deepest, filtered) for member in self.members]

    def embed(self, images: Tensor) -> Tensor:
        """``(B, E)``: the members' embeddings, which count alike."""
        pairs = zip(self.members, self._look(images, self.cam_level), strict=True)
        return _join([member.embed_maps(own[self.cam_level]) for member, own in pairs])

    @torch.no_grad()
    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """``(C, E)``: the members' embeddings of each prompt."""
        return _join([member.embed_text(prompts) for member in self.members])


def _join(embeddings: Sequence[Tensor]) -> Tensor:
    return F.normalize(torch.cat(list(embeddings), 1), dim=1)


def _describe(files: Sequence[WeightFile]) -> WeightFile | None:
    """Describe the members' files as one; None if they are those that ship."""
    if not files:
        return None
    sha256 = hashlib.sha256("\n".join(file.sha256 for file in files).encode()).hexdigest()
    sources = ", ".join(file.source for file in files)
    return WeightFile(files[0].path.parent, sources, files[0].revision, sha256)
