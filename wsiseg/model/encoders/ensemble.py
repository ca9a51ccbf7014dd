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
from wsiseg.model.encoders.ensemble_network import EnsembleNetwork
from wsiseg.model.encoders.learned import LearnedEncoder, TileEncoder
from wsiseg.model.encoders.lite import LiteEncoder
from wsiseg.model.encoders.small import SmallEncoder
from wsiseg.model.weights import WeightFile

__all__ = ["EnsembleEncoder"]


class EnsembleEncoder(LearnedEncoder):
    """The student, an `Encoder`: the maps of its members, one's channels after the other's.

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

    network_type = EnsembleNetwork
    context = max(LiteEncoder.context, SmallEncoder.context)
    network: EnsembleNetwork

    def __init__(self, weights: str | Path | None = None) -> None:
        if weights is not None and Path(weights).is_file():
            raise CheckpointError(
                f"{weights}: give the folder that holds lite.safetensors and small.safetensors"
            )
        lite, small = LiteEncoder(weights), SmallEncoder(weights)
        super().__init__(EnsembleNetwork(lite.network, small.network))
        self.lite, self.small = lite, small
        joined = hashlib.sha256("\n".join(member.identity for member in self.members).encode())
        self.identity = f"ensemble-{joined.hexdigest()[:16]}"
        self.weights = _describe([member.weights for member in self.members if member.weights])

    @property
    def members(self) -> tuple[TileEncoder, ...]:
        """The encoders that see each image."""
        return self.lite, self.small

    def embed(self, images: Tensor) -> Tensor:
        """``(B, E)``: the members' embeddings, which count alike."""
        each = self.network.look_apart(F.avg_pool2d(images, 2), self.cam_level)
        pairs = zip(self.members, each, strict=True)
        return _join([member.embed_maps(maps[self.cam_level]) for member, maps in pairs])

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
