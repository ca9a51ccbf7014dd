"""A trained ConStruct with what its checkpoint says: together a source of CAMs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsiseg.annotations import Palette
from wsiseg.model.checkpoint import CheckpointInfo, load_checkpoint
from wsiseg.model.construct import ConStruct
from wsiseg.model.fusion import overlapped_cams
from wsiseg.model.source import Sides

__all__ = ["TrainedModel", "load_trained"]


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """ConStruct as a `CamSource`."""

    model: ConStruct
    info: CheckpointInfo

    @property
    def name(self) -> str:
        """The encoder, by its name."""
        return f"encoder {self.info.encoder!r}"

    @property
    def palette(self) -> Palette:
        """Names and colours of the checkpoint's classes."""
        return self.info.palette

    @property
    def channels(self) -> int:
        """K, plus the kinds of background that it was trained on."""
        return self.model.classes

    @property
    def background(self) -> tuple[str, ...]:
        """The checkpoint's last classes, if it was trained on kinds of background."""
        return self.info.names[len(self.palette) :]

    @property
    def calibration(self) -> tuple[tuple[float, float], ...]:
        """The checkpoint's."""
        return self.info.calibration

    @property
    def stride(self) -> int:
        """Input pixels per CAM cell."""
        return self.model.cam_stride // self.info.cam_overlap

    @property
    def sides(self) -> Sides:
        """Multiples of the encoder's coarsest cell, or the only size that it accepts."""
        encoder = self.model.encoder
        only: int | None = getattr(encoder, "image_size", None)
        coarsest = encoder.level_strides[-1]
        return Sides(coarsest, coarsest) if only is None else Sides(only, 0)

    @property
    def tile(self) -> int:
        """Side of the training patches, pixels."""
        return self.info.tile

    @property
    def context(self) -> int:
        """The encoder's; most have none."""
        return int(getattr(self.model.encoder, "context", 0))

    @property
    def mpp(self) -> float:
        """µm/px of the training patches."""
        return self.info.mpp

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.model.logit_scale.device

    @property
    def mean(self) -> tuple[float, float, float]:
        """The encoder's mean colour."""
        return self.model.encoder.mean

    @property
    def std(self) -> tuple[float, float, float] | None:
        """The standard deviation of the encoder's normalisation, if it has one."""
        std: tuple[float, float, float] | None = getattr(self.model.encoder, "std", None)
        return std

    @property
    def exclusive(self) -> bool:
        """Whether it was trained on kinds of background.

        Then all channels compete, and scaling each to its own range would find some background
        everywhere: the paper's inference is for models of classes alone.
        """
        return self.info.background > 0

    def cams(self, images: Tensor) -> Tensor:
        """``(B, K, h, w)`` cosine times logit scale, ungated."""
        if self.info.cam_overlap == 2:
            return overlapped_cams(self._compute_cams, images, self.model.cam_stride)
        return self._compute_cams(images)

    def _compute_cams(self, images: Tensor) -> Tensor:
        cams: Tensor = self.model(images).cams
        return cams

    def look(self, images: Tensor) -> Tensor:
        """The CAMs: class logits are pooled from nothing else."""
        return self.cams(images)

    def pool(self, seen: Tensor, known: Tensor | None = None) -> Tensor:
        """``(B, K)`` class logits, as the model was trained on them."""
        return self.model.pool(seen, known)

    def distance(self, images: Tensor) -> Tensor | None:
        """``(B,)``: how far images are from the training patches; None if that was not recorded."""
        familiar = self.model.familiar
        return None if familiar is None else familiar(self.model.encoder.embed_image(images))

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Switch to evaluation mode; restore the model's mode afterwards."""
        before = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(before)


def load_trained(
    name_or_path: str | Path,
    encoder_options: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
) -> TrainedModel:
    """Load a checkpoint's model onto a device; arguments and errors as in `load_checkpoint`."""
    model, info = load_checkpoint(name_or_path, encoder_options)
    return TrainedModel(model.to(device), info)
