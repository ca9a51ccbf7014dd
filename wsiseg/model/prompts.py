"""Classes from texts, without training: a source of CAMs that compares windows with prompts.

A class is the normalised mean of the normalised embeddings of all its sentences (every phrasing in
every template), as in CLIP's and CONCH's zero-shot classifiers; its logit is the cosine with
the embedding of a window of the image, times the logit scale.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import product
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wsiseg.annotations import Palette
from wsiseg.errors import ConfigError
from wsiseg.model.cam import known_shares
from wsiseg.model.encoders import PromptEncoder
from wsiseg.model.prompt_file import PromptSet
from wsiseg.model.source import Sides

__all__ = ["PromptSource", "embed_prompts"]

_EPSILON = 1e-6  # probabilities are kept this far from 0 and 1, so that log-odds stay finite


def embed_prompts(encoder: PromptEncoder, prompts: PromptSet) -> Tensor:
    """Average each channel's sentences: ``(channels, E)`` float32 unit rows on the CPU.

    Raises
    ------
    CheckpointError
        If the encoder lacks what it needs for texts, such as its tokenizer.
    """
    texts = prompts.texts()
    embedded = encoder.embed_text([sentence for channel in texts for sentence in channel])
    counts = [len(channel) for channel in texts]
    parts = torch.split(F.normalize(embedded.float().cpu(), dim=1), counts)
    return F.normalize(torch.stack([part.mean(0) for part in parts]), dim=1)


class PromptSource:
    """Prompts as a `CamSource`.

    An image is cut into square windows, one every `stride` pixels. With ``features="window"``
    each is embedded as a whole, as CONCH's published zero-shot segmentation does; with ``"patch"``
    each of its patches is, for a finer map (`PromptEncoder.embed_patches`). A cell's logits are
    the mean of those of the windows that cover it.

    Parameters
    ----------
    encoder
        On its device.
    palette
        Names and colours of the K classes.
    texts
        ``(K + B, E)`` float unit rows: the classes, then the kinds of background.
    window
        Side in pixels; None: the encoder's image size. Windows of another side are resized to it
        (bicubic, antialiased, as CONCH's own preprocessing).
    stride
        Pixels from one window to the next; None: side by side.
    features
        What is embedded.
    scale
        Factor of the cosines; None: the encoder's own.
    name
        Name of the encoder, for messages.

    Raises
    ------
    ConfigError
        If `stride` does not divide the window, or patches do not fall on whole cells.
    """

    def __init__(
        self,
        encoder: PromptEncoder,
        palette: Palette,
        texts: Tensor,
        *,
        window: int | None = None,
        stride: int | None = None,
        features: Literal["window", "patch"] = "window",
        scale: float | None = None,
        name: str = "",
    ) -> None:
        self.encoder, self.palette, self.texts = encoder, palette, texts
        self.window = window or encoder.image_size
        self.step, self.features = stride or self.window, features
        self.scale = encoder.logit_scale if scale is None else scale
        self.name = f"prompts with encoder {name!r}" if name else "the prompts' encoder"
        self.channels = len(texts)
        self.mean, self.std = encoder.region_mean, encoder.region_std
        self.tile: int | None = None
        self.context = 0
        self.mpp: float | None = None
        self.calibration: tuple[tuple[float, float], ...] = ()
        self.background: tuple[str, ...] = ()  # phrases, which nobody labels
        self.sides = Sides(self.window, self.step)
        self.stride = _measure_cell(self.window, self.step, features, encoder)

    @property
    def device(self) -> torch.device:
        """The device of the texts and the encoder."""
        return self.texts.device

    @property
    def exclusive(self) -> bool:
        """False: its CAMs are cosines, one class independent of another."""
        return False

    def cams(self, images: Tensor) -> Tensor:
        """``(B, channels, h, w)`` float32: cosine times scale."""
        batch, _, height, width = images.shape
        rows, cols = height // self.stride, width // self.stride
        total = images.new_zeros((batch, self.channels, rows, cols))
        counts = images.new_zeros((rows, cols))
        for top, left in self._corners(height, width):
            crop = images[:, :, top : top + self.window, left : left + self.window]
            cells = (slice(top // self.stride, (top + self.window) // self.stride),
                     slice(left // self.stride, (left + self.window) // self.stride))  # fmt: skip
            total[:, :, *cells] += self._score(crop)
            counts[cells] += 1
        return total / counts

    def _corners(self, height: int, width: int) -> Iterator[tuple[int, int]]:
        tops, lefts = (range(0, side - self.window + 1, self.step) for side in (height, width))
        return product(tops, lefts)

    def _score(self, windows: Tensor) -> Tensor:
        """``(B, channels, g, g)`` logits of windows; g is 1, or patches a side."""
        size = self.encoder.image_size
        if self.window != size:
            windows = F.interpolate(
                windows, (size, size), mode="bicubic", antialias=True, align_corners=False
            ).clamp(0, 1)
        if self.features == "patch":
            embedded = self.encoder.embed_patches(windows)
        else:
            embedded = self.encoder.embed_image(windows)[:, :, None, None]
        with torch.autocast(embedded.device.type, enabled=False):  # the scale is some 50 to 100
            return self.scale * torch.einsum("behw,ce->bchw", embedded, self.texts)

    def look(self, images: Tensor) -> Tensor:
        """The CAMs: class logits are pooled from nothing else."""
        return self.cams(images)

    def pool(self, seen: Tensor, known: Tensor | None = None) -> Tensor:
        """``(B, channels)``: log-odds of the channel's greatest probability in any cell.

        The probability is the softmax over a cell's channels, and the sigmoid of the logit gives it
        back: a threshold of 0.25 lets a class through that has a probability of 0.25 in any cell.
        """
        shares = seen.float().softmax(1)
        if known is not None:
            here = known_shares(known, seen.shape[2:]) > 0
            shares = shares * here.view(len(seen), 1, *seen.shape[2:])
        return torch.logit(shares.amax((2, 3)), eps=_EPSILON)

    def distance(self, images: Tensor) -> None:
        """None: what the encoder was trained on is unknown."""

    def evaluating(self) -> AbstractContextManager[None]:
        """Nothing to do: it is never trained."""
        return nullcontext()


def _measure_cell(window: int, step: int, features: str, encoder: PromptEncoder) -> int:
    """Pixels per CAM cell: the stride of the windows, or the side of a patch."""
    if window % step:
        divisors = (part for part in range(1, window + 1) if window % part == 0)
        nearest = min(divisors, key=lambda part: abs(part - step))
        raise ConfigError(
            f"prompt_stride {step} does not divide the window of {window} px, as it must; the "
            f"nearest that does is {nearest}"
        )
    if features == "window":
        return step
    patches = encoder.image_size // encoder.patch
    if window % patches or step % (window // patches):
        raise ConfigError(
            f"windows of {window} px every {step} px do not fall on whole cells of the encoder's "
            f"{patches} x {patches} patches; prompt_window must be a multiple of {patches}, and "
            f"prompt_stride of the window's {patches}th part"
        )
    return window // patches
