"""ConStruct: prototypes of class texts, compared with adapted features of a frozen encoder.

Student pyramid -> structure adapters -> prototype bank -> adaptive layer -> cosine CAMs times the
logit scale -> class logits by averaging. Names follow the paper (MIDL 2026).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsiseg.config import Pooling, Preset
from wsiseg.model.cam import pool_cams, prototype_cosines
from wsiseg.model.encoders import Encoder, Teacher, TextEncoder
from wsiseg.model.exemplars import Exemplars
from wsiseg.model.familiar import Familiar
from wsiseg.model.fusion import TopDown
from wsiseg.model.losses import relational_loss

__all__ = [
    "AdaptiveLayer",
    "ConStruct",
    "ConStructOutput",
    "ParameterCounts",
    "StructureAdapter",
    "TextProjection",
]

LOGIT_SCALE = 1 / 0.07
"""Initial logit scale; the scale itself, not its logarithm."""
SPREAD = 0.1
"""Initial distance of a class's several prototypes from its text, which has length 1."""


class ConStructOutput(NamedTuple):
    """Output of one forward pass."""

    logits: Tensor
    """``(B, K)`` class logits: each CAM, pooled."""
    cams: Tensor
    """``(B, K, h, w)`` cosine times logit scale, ungated."""
    structure_loss: Tensor | None
    """Relational loss against the teacher, a scalar; None without teacher stages."""
    cosines: Tensor
    """``(B, K, k, h, w)`` cosine with each prototype, of which the CAM takes the largest."""


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


class TextProjection(nn.Module):
    """The paper's two-layer MLP over text prototypes, for preset `paper`; unit rows."""

    def __init__(self, embedding: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embedding, embedding // 2)
        self.fc2 = nn.Linear(embedding // 2, embedding)

    def forward(self, prototypes: Tensor) -> Tensor:
        """``(P, E)`` to ``(P, E)``, L2-normalised rows."""
        return F.normalize(self.fc2(F.relu(self.fc1(prototypes))), dim=1)


class ParameterCounts(NamedTuple):
    """Numbers of parameters, by what training does with them."""

    marked: int
    """Handed to the optimiser."""
    learning: int
    """Reached by a gradient, so actually trained."""
    frozen: int
    """Of the encoder and the teacher."""


class ConStruct(nn.Module):
    """The model over one frozen encoder.

    Parameters
    ----------
    encoder
        The frozen student; its widths decide the adapters'.
    texts
        One text per class, for an encoder that embeds texts, or embeddings ``(K, E)``: the initial
        prototypes.
    prototypes_per_class
        k; a class's CAM is the maximum over its k.
    teacher
        Only for training: gives the stages that the structure loss compares with.
    preset
        `reference` and `paper` hold an adapter and an adaptive layer at every level, used or not,
        as the released code does; `paper` also projects the prototypes (`TextProjection`).
    guidance_levels
        Levels that the teacher guides; None for the encoder's own.
    cam_levels
        Levels that the CAM reads, fused top-down if there are several; None for the encoder's own.
    pooling
        How a CAM becomes a class logit.
    """

    encoder: Encoder
    teacher: Teacher | None
    familiar: Familiar | None
    """Tells whether images look like the training patches; None if that was not recorded."""
    exemplars: Exemplars | None
    """Features of training patches for later training; None if none were kept."""

    def __init__(
        self,
        encoder: Encoder,
        texts: Sequence[str] | Tensor,
        *,
        prototypes_per_class: int = 1,
        teacher: Teacher | None = None,
        preset: Preset = "wsiseg",
        guidance_levels: Sequence[int] | None = None,
        cam_levels: Sequence[int] | None = None,
        pooling: Pooling = "mean",
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.encoder, self.teacher, self.preset = encoder, teacher, preset
        self.classes = len(texts)
        self.guidance_levels = tuple(guidance_levels or encoder.guidance_levels)
        self.cam_levels = tuple(sorted(set(cam_levels or (encoder.cam_level,))))
        channels = encoder.level_channels
        used = {*self.cam_levels, *self.guidance_levels}
        # Ours holds only levels that a loss or the CAM reaches; the others are dead weight.
        levels = sorted(used) if preset == "wsiseg" else range(len(channels))
        self.structure_adapters = nn.ModuleDict(
            {str(level): StructureAdapter(channels[level]) for level in levels}
        )
        self.l_fc = AdaptiveLayer(encoder.embedding_dim, channels[self.cam_levels[-1]])
        if preset != "wsiseg":
            self._add_idle_layers()
        if not isinstance(texts, Tensor):
            texts = cast(TextEncoder, encoder).embed_text(texts)
        embedded = texts
        bank = embedded.repeat_interleave(prototypes_per_class, 0)
        if prototypes_per_class > 1 and preset != "reference":
            # Equal prototypes would get equal gradients, and so stay equal.
            bank = bank + SPREAD * F.normalize(torch.randn(bank.shape).to(bank), dim=1)
        self.prototypes = nn.Parameter(bank)
        self.logit_scale = nn.Parameter(torch.tensor(LOGIT_SCALE))
        self.text_projection = TextProjection(encoder.embedding_dim) if preset == "paper" else None
        self.familiar, self.exemplars = None, None
        several = len(self.cam_levels) > 1
        self.fusion = TopDown([channels[level] for level in self.cam_levels]) if several else None

    def add_parts(self, state: Mapping[str, Tensor]) -> None:
        """Add the parts that only some checkpoints have, of the shapes in `state`, to be loaded."""
        if "familiar.axes" in state:
            self.familiar = Familiar(len(state["familiar.axes"]), self.encoder.embedding_dim)
        if "exemplars.features" in state:
            self.exemplars = Exemplars(state["exemplars.features"].shape, self.classes)

    def begin_from(self, state: Mapping[str, Tensor]) -> None:
        """Load some or all trained tensors, with the parts that go with them."""
        self.add_parts(state)
        self.load_state_dict(state, strict=False)

    def _add_idle_layers(self) -> None:
        """Add the adaptive layers of the other levels, which nothing uses: ``l_fc1`` and so on."""
        for level, channels in enumerate(self.encoder.level_channels):
            if level != self.cam_levels[-1]:
                layer = AdaptiveLayer(self.encoder.embedding_dim, channels)
                self.add_module(f"l_fc{level + 1}", layer)

    def train(self, mode: bool = True) -> ConStruct:
        """Switch the trained part; the frozen encoders stay in evaluation mode."""
        super().train(mode)
        for frozen in (self.encoder, self.teacher):
            if isinstance(frozen, nn.Module):
                frozen.eval()
        return self

    def forward(self, images: Tensor) -> ConStructOutput:
        """``(B, 3, H, W)`` float RGB in [0, 1] to logits, CAMs and, with a teacher, its loss."""
        guided = self.guidance_levels if self.teacher is not None else ()
        levels = sorted(self.levels_for(bool(guided)))
        pyramid = dict(zip(levels, self.encoder.pyramid(images, levels), strict=True))
        if self.teacher is None:
            return self.read_pyramid(pyramid)
        stages = self.teacher.stages(images, guided)
        return self.read_pyramid(pyramid, dict(zip(guided, stages, strict=True)))

    def levels_for(self, guided: bool) -> set[int]:
        """Pyramid levels that `read_pyramid` needs, with teacher stages (`guided`) or without."""
        if self.training and self.preset != "wsiseg":
            # Unused adapters run in training, so that their batch statistics move.
            return set(range(len(self.encoder.level_channels)))
        return {*self.cam_levels, *(self.guidance_levels if guided else ())}

    def read_pyramid(
        self, pyramid: Mapping[int, Tensor], stages: Mapping[int, Tensor] | None = None
    ) -> ConStructOutput:
        """Do the forward pass from the maps of the encoder and the teacher, by level.

        Only the levels of `levels_for` are needed, and of `stages` the guidance levels.
        """
        refined = self._refine(pyramid, self.levels_for(stages is not None))
        cosines = prototype_cosines(self._fuse(refined), self.l_fc(self.bank), self.classes)
        cams = self.logit_scale * cosines.amax(2)
        loss = None if stages is None else self._structure_loss(refined, stages)
        return ConStructOutput(self.pool(cams), cams, loss, cosines)

    def cam_features(self, pyramid: Mapping[int, Tensor]) -> Tensor:
        """``(B, D, h, w)`` features to compare with the prototypes; needs the `cam_levels`."""
        return self._fuse(self._refine(pyramid, set(self.cam_levels)))

    def _refine(self, pyramid: Mapping[int, Tensor], levels: set[int]) -> dict[int, Tensor]:
        return {
            level: self.structure_adapters[str(level)](pyramid[level]) for level in sorted(levels)
        }

    def _fuse(self, refined: Mapping[int, Tensor]) -> Tensor:
        if self.fusion is None:
            return refined[self.cam_levels[0]]
        fused: Tensor = self.fusion([refined[level] for level in self.cam_levels])
        return fused

    @property
    def cam_stride(self) -> int:
        """Input pixels per CAM cell."""
        return self.encoder.level_strides[self.cam_levels[0]]

    def pool(self, cams: Tensor, known: Tensor | None = None) -> Tensor:
        """``(B, K, h, w)`` CAMs to ``(B, K)`` class logits, over `known` ``(B, c, c)`` cells."""
        return pool_cams(cams, self.pooling, known)

    def _structure_loss(self, refined: dict[int, Tensor], stages: Mapping[int, Tensor]) -> Tensor:
        losses = [relational_loss(refined[level], stages[level]) for level in self.guidance_levels]
        return torch.stack(losses).mean()

    @property
    def bank(self) -> Tensor:
        """``(K * k, E)``: the prototype bank, through the text projection where there is one."""
        if self.text_projection is None:
            return self.prototypes
        projected: Tensor = self.text_projection(self.prototypes)
        return projected

    @property
    def anchors(self) -> Tensor:
        """``(K, E)``: mean prototype of each class, for the contrastive loss."""
        bank = self.bank
        return bank.view(self.classes, -1, bank.shape[1]).mean(1)

    def count_parameters(self) -> ParameterCounts:
        """Count what is marked for training, what learns and what is frozen."""
        guided = self.guidance_levels if self.teacher is not None else ()
        reached = {f"structure_adapters.{i}." for i in (*self.cam_levels, *guided)}
        reached |= {"l_fc.", "prototypes", "logit_scale", "text_projection.", "fusion."}
        marked = {name: p.numel() for name, p in self.named_parameters() if p.requires_grad}
        learning = sum(n for name, n in marked.items() if name.startswith(tuple(reached)))
        parts: list[object] = [self.encoder, self.teacher]
        frozen = sum(
            tensor.numel()
            for part in parts
            if isinstance(part, nn.Module)
            for tensor in (*part.parameters(), *part.buffers())
        )
        return ParameterCounts(sum(marked.values()), learning, frozen)
