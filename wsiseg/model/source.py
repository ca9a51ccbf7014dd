"""What gives CAMs: one promise, which a trained ConStruct, a set of prompts and a network of
the second stage keep alike.

`wsiseg predict`, the evaluation and the pictures of CAMs know nothing else of a model.
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
        """Whether an image of this side can be taken."""
        return side == self.nearest(side)

    def nearest(self, side: int) -> int:
        """The side nearest to `side` that can be taken."""
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
    softmax over all channels is what the source thinks of it.
    """

    @property
    def name(self) -> str:
        """What a message calls it, such as ``encoder 'conch'``."""
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
    def calibration(self) -> tuple[tuple[float, float], ...]:
        """Scale and offset of each channel that make its CAM a logit to believe; or empty."""
        ...

    @property
    def stride(self) -> int:
        """Input pixels a CAM cell."""
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
        """Pixels around an image by which its CAM gains; 0 if it is to be seen by itself.

        Where there is one, the CAM of a part is the part of the CAM, but near the border.
        """
        ...

    @property
    def mpp(self) -> float | None:
        """µm/px of the images that it was made for; None if it is not known."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    @property
    def mean(self) -> tuple[float, float, float]:
        """RGB in [0, 1] about which brightness turns: the mean of the source's normalisation."""
        ...

    @property
    def std(self) -> tuple[float, float, float] | None:
        """The spread of that normalisation; None if the source has none."""
        ...

    @property
    def exclusive(self) -> bool:
        """Whether a cell is of one channel alone, so that the softmax says how likely of which.

        Else a CAM says where each class is most itself, and the paper's inference scales each to
        its own range.
        """
        ...

    def cams(self, images: Tensor) -> Tensor:
        """``(B, channels, h, w)`` float logits of ``(B, 3, H, W)`` float RGB in [0, 1].

        ``h = H / stride`` and ``w = W / stride``.
        """
        ...

    def pool(self, cams: Tensor, known: Tensor | None = None) -> Tensor:
        """``(B, channels)`` class logits of CAMs ``(B, channels, h, w)``.

        A class shows in an image where the sigmoid of its logit reaches a threshold. With `known`
        ``(B, c, c)`` bool, the logits are of these cells alone.
        """
        ...

    def distance(self, images: Tensor) -> Tensor | None:
        """``(B,)`` float32: how unlike what the source was taught; None if nobody knows.

        Above 1, an image is farther than 99 % of the training images were.
        """
        ...

    def evaluating(self) -> AbstractContextManager[None]:
        """Be as in use, not as in training, for as long as the context lasts."""
        ...
