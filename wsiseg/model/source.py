"""The protocol of a source of CAMs, which a trained ConStruct, a set of prompts and a second-stage
network implement.

`wsiseg predict`, the evaluation and the pictures of CAMs know nothing else about a model.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from wsiseg.annotations import Palette

__all__ = ["CamSource", "Sides"]


@dataclass(frozen=True)
class Sides:
    """Sides of the images that a source takes, in pixels: `least`, and every `step` from there."""

    least: int
    """The smallest."""
    step: int
    """Distance to the next; 0: there is no other."""

    def fits(self, side: int) -> bool:
        """Whether an image of this side is accepted."""
        return side == self.nearest(side)

    def nearest(self, side: int) -> int:
        """Return the accepted side nearest to `side`."""
        if not self.step:
            return self.least
        return self.least + max(0, round((side - self.least) / self.step)) * self.step

    def __str__(self) -> str:
        if not self.step:
            return f"exactly {self.least} px"
        if self.least % self.step:
            return f"{self.least} px or {self.step} px more, twice {self.step} px more ..."
        start = f" from {self.least} px on" if self.least > self.step else ""
        return f"multiples of {self.step} px{start}"


class CamSource(Protocol):
    """CAM logits of images, channel by channel: K classes, then kinds of background.

    Frozen: it is only read, so that threads may share it. The logits of one cell compete: their
    softmax over all channels is the source's estimate for it.
    """

    @property
    def name(self) -> str:
        """Its name in messages, such as ``encoder 'conch'``."""
        ...

    @property
    def palette(self) -> Palette:
        """Names and colours of the K classes, which may become labels."""
        ...

    @property
    def channels(self) -> int:
        """K, or K + B if the last B channels are kinds of background, which never become labels."""
        ...

    @property
    def background(self) -> tuple[str, ...]:
        """Names of the kinds of background, as people label them; empty if they have none."""
        ...

    @property
    def calibration(self) -> tuple[tuple[float, float], ...]:
        """Scale and offset that calibrate the logits of each channel; or empty."""
        ...

    @property
    def stride(self) -> int:
        """Input pixels per CAM cell."""
        ...

    @property
    def sides(self) -> Sides:
        """Sides of the images that it takes; each is a multiple of `stride`."""
        ...

    @property
    def tile(self) -> int | None:
        """Side in pixels of the images that it was made for; None if it does not matter."""
        ...

    @property
    def context(self) -> int:
        """Pixels of surroundings that improve an image's CAM; 0 if images are to be seen alone.

        With context, the CAM of a part is the part of the CAM, except near the border.
        """
        ...

    @property
    def mpp(self) -> float | None:
        """µm/px of the images that it was made for; None if it is not known."""
        ...

    @property
    def device(self) -> torch.device:
        """The device that it computes on."""
        ...

    @property
    def mean(self) -> tuple[float, float, float]:
        """Mean of its normalisation, RGB in [0, 1]; augmentation scales brightness about it."""
        ...

    @property
    def std(self) -> tuple[float, float, float] | None:
        """Standard deviation of that normalisation; None if it has none."""
        ...

    @property
    def exclusive(self) -> bool:
        """Whether the channels exclude each other, so that their softmax gives probabilities.

        Otherwise a CAM says where each class is strongest, and the paper's inference scales each
        to its own range.
        """
        ...

    def cams(self, images: Tensor) -> Tensor:
        """``(B, channels, h, w)`` float logits of ``(B, 3, H, W)`` float RGB in [0, 1].

        ``h = H / stride`` and ``w = W / stride``.
        """
        ...

    def look(self, images: Tensor) -> Tensor:
        """``(B, channels + E, h, w)``: the CAMs, and E channels of what else `pool` reads.

        E may be 0. All may be averaged over augmentations and cut cell by cell, as CAMs may.
        """
        ...

    def pool(self, seen: Tensor, known: Tensor | None = None) -> Tensor:
        """``(B, channels)`` class logits of what `look` gave ``(B, channels + E, h, w)``.

        A class is present in an image if the sigmoid of its logit reaches a threshold. With `known`
        ``(B, c, c)`` bool, only these cells count.
        """
        ...

    def distance(self, images: Tensor) -> Tensor | None:
        """``(B,)`` float32: distance from the source's training images; None if these are unknown.

        Above 1, an image is farther than 99 % of the training images were.
        """
        ...

    def evaluating(self) -> AbstractContextManager[None]:
        """Return a context in which the source is in evaluation mode."""
        ...
