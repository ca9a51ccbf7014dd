"""ConStruct: prototypes of class texts, compared with adapted features of a frozen encoder.

Student pyramid -> structure adapters -> prototype bank -> adaptive layer -> cosine CAMs times the
logit scale -> class logits by averaging. Names follow the paper (MIDL 2026).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsiseg.model.cam import cosine_cams
from wsiseg.model.encoders import Encoder, Teacher
from wsiseg.model.losses import relational_loss

__all__ = ["AdaptiveLayer", "ConStruct", "ConStructOutput", "StructureAdapter"]

LOGIT_SCALE = 1 / 0.07
"""First value of the logit scale: itself, not its logarithm."""


class ConStructOutput(NamedTuple):
    """What one forward pass gives."""

    logits: Tensor
    """``(B, K)`` class logits: the mean of each CAM."""
    cams: Tensor
    """``(B, K, h, w)`` cosine times logit scale, ungated."""
    structure_loss: Tensor | None
    """Relational loss against the teacher, a scalar; None without teacher stages."""


class StructureAdapter(nn.Module):
    """``R = F + net(F)`` at one pyramid level; the identity until it is trained."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        last = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]  # a Conv2d made with its bias has one
        self.net = nn.Sequential(
            nn.Conv2d(channels, channels, 1),
            nn.BatchNorm2d(channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.BatchNorm2d(channels),
            nn.GELU(),
            last,
        )

    def forward(self, features: Tensor) -> Tensor:
        """``(B, D, h, w)`` to the same shape."""
        adapted: Tensor = features + self.net(features)
        return adapted


class AdaptiveLayer(nn.Module):
    """From the prototypes' text space to the channels of the CAM's level."""

    def __init__(self, embedding: int, channels: int) -> None:
        super().__init__()
        hidden = embedding // 2
        self.fc1 = nn.Linear(embedding, hidden)
        self.fc2 = nn.Linear(hidden, channels)
        for layer in (self.fc1, self.fc2):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, prototypes: Tensor) -> Tensor:
        """``(P, E)`` to ``(P, D)``, L2-normalised rows."""
        return F.normalize(self.fc2(F.relu(self.fc1(prototypes))), dim=1)


class ConStruct(nn.Module):
    """The model over one frozen encoder.

    Parameters
    ----------
    encoder
        The frozen student; its widths decide the adapters'.
    prompts
        One text a class; their embeddings are the first prototypes.
    prototypes_per_class
        k; a class's CAM is the maximum over its k.
    teacher
        Only for training: gives the stages that the structure loss compares with.
    """

    encoder: Encoder
    teacher: Teacher | None

    def __init__(
        self,
        encoder: Encoder,
        prompts: Sequence[str],
        *,
        prototypes_per_class: int = 1,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.teacher = encoder, teacher
        self.classes = len(prompts)
        # Only levels that a loss or the CAM reaches; the others would be dead weight.
        levels = sorted({encoder.cam_level, *encoder.guidance_levels})
        self.structure_adapters = nn.ModuleDict(
            {str(level): StructureAdapter(encoder.level_channels[level]) for level in levels}
        )
        self.l_fc = AdaptiveLayer(encoder.embedding_dim, encoder.level_channels[encoder.cam_level])
        texts = encoder.embed_text(prompts)
        self.prototypes = nn.Parameter(texts.repeat_interleave(prototypes_per_class, 0))
        self.logit_scale = nn.Parameter(torch.tensor(LOGIT_SCALE))

    def train(self, mode: bool = True) -> ConStruct:
        """Switch the trained part; the frozen encoders stay in evaluation mode."""
        super().train(mode)
        for frozen in (self.encoder, self.teacher):
            if isinstance(frozen, nn.Module):
                frozen.eval()
        return self

    def forward(self, images: Tensor) -> ConStructOutput:
        """``(B, 3, H, W)`` float RGB in [0, 1] to logits, CAMs and, with a teacher, its loss."""
        pyramid = dict(enumerate(self.encoder.pyramid(images)))
        if self.teacher is None:
            return self.read_pyramid(pyramid)
        return self.read_pyramid(pyramid, dict(enumerate(self.teacher.stages(images))))

    def read_pyramid(
        self, pyramid: Mapping[int, Tensor], stages: Mapping[int, Tensor] | None = None
    ) -> ConStructOutput:
        """The same from the maps that the encoder and the teacher gave, by level.

        Only the CAM's level is needed, and with `stages` the guidance levels of both.
        """
        cam_level = self.encoder.cam_level
        wanted = {cam_level} if stages is None else {cam_level, *self.encoder.guidance_levels}
        refined = {
            level: self.structure_adapters[str(level)](pyramid[level]) for level in sorted(wanted)
        }
        projected = self.l_fc(self.prototypes)
        cams = cosine_cams(refined[cam_level], projected, self.logit_scale, self.classes)
        loss = None if stages is None else self._structure_loss(refined, stages)
        return ConStructOutput(cams.mean((2, 3)), cams, loss)

    def _structure_loss(self, refined: dict[int, Tensor], stages: Mapping[int, Tensor]) -> Tensor:
        losses = [
            relational_loss(refined[level], stages[level]) for level in self.encoder.guidance_levels
        ]
        return torch.stack(losses).mean()

    @property
    def anchors(self) -> Tensor:
        """``(K, E)``: mean prototype of each class, for the contrastive loss."""
        return self.prototypes.view(self.classes, -1, self.prototypes.shape[1]).mean(1)
