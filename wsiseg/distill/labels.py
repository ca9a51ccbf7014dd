"""What the second stage learns from: windows of images, and what a first stage says of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsiseg.annotations import Palette
from wsiseg.config import DistillConfig, digest_of

__all__ = ["UNKNOWN", "LabelledWindows", "Read", "Survey", "choose_least", "count_window"]

UNKNOWN = 255
"""Label of a pixel of which the first stage does not say anything."""


class Read(NamedTuple):
    """Some windows."""

    images: NDArray[np.uint8]
    """``(B, side, side, 3)`` RGB."""
    labels: NDArray[np.uint8]
    """``(B, side, side)``: 0 .. K - 1, K for background, or `UNKNOWN`."""
    confidence: NDArray[np.uint8]
    """``(B, side, side)``: of the label, 255 being 1."""


@dataclass(frozen=True)
class Survey:
    """What is in all windows together, counted once."""

    counts: NDArray[np.int64]
    """``(K + 1, 256)`` pixels by label and confidence; the last label is background."""
    shown: NDArray[np.bool_]
    """``(N, K)`` whether each window shows a class."""


@dataclass(frozen=True)
class LabelledWindows:
    """Square windows, the labels of their pixels and where these come from.

    Keeps the promise `PatchSource`; the labels of a window are the classes that it shows.
    """

    palette: Palette
    """Names and colours of the K classes."""
    first_stage: dict[str, str]
    """What made the labels, by what it is called."""
    has_confidence: bool
    """Whether the first stage said how sure it is; if not, it counts as sure of all."""
    calibrated: bool
    """Whether its confidence is a probability to believe."""
    side: int
    """Of every window, pixels."""
    tile: int
    """Side of the tiles or patches that the first stage saw, pixels."""
    mpp: float | None
    """µm/px; None if nobody says."""
    identity: str
    """Hash of pixels and labels; where they lie does not count."""
    names: tuple[str, ...]
    """What a person calls each."""
    cases: tuple[str | None, ...]
    """The patient or slide of each, None where nobody says."""
    survey: Survey
    reader: Callable[[Sequence[int]], Read]
    """Reads windows by their numbers."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def labels(self) -> NDArray[np.float32]:
        """``(N, K)`` float32: 1 where the class shows, else 0."""
        return self.survey.shown.astype(np.float32)

    @property
    def weights(self) -> NDArray[np.float32]:
        """``(N,)`` float32: all 1."""
        return np.ones(len(self), np.float32)

    @property
    def known(self) -> None:
        """Labels are of whole windows."""
        return None

    def name(self, index: int) -> str:
        """The file's name, or slide and place."""
        return self.names[index]

    def read(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """``(B, side, side, 3)`` uint8 RGB."""
        return self.reader(indices).images

    def pick(self, which: Sequence[int]) -> LabelledWindows:
        """Some of them. What all of them hold together stays what was counted: it sets limits."""
        chosen = list(which)
        return LabelledWindows(
            self.palette, self.first_stage, self.has_confidence, self.calibrated, self.side,
            self.tile, self.mpp, digest_of(self.identity, chosen),
            tuple(self.names[n] for n in chosen),
            tuple(self.cases[n] for n in chosen),
            Survey(self.survey.counts, self.survey.shown[chosen]),
            partial(_read_some, self.reader, tuple(chosen)),
        )  # fmt: skip


def _read_some(
    reader: Callable[[Sequence[int]], Read], chosen: tuple[int, ...], indices: Sequence[int]
) -> Read:
    return reader([chosen[index] for index in indices])


def count_window(
    labels: NDArray[np.uint8], confidence: NDArray[np.uint8], classes: int
) -> NDArray[np.int64]:
    """``(K + 1, 256)``: pixels by label and confidence; those `UNKNOWN` are left out."""
    known = labels <= classes
    pairs = labels[known].astype(np.int64) * 256 + confidence[known]
    return np.bincount(pairs, minlength=(classes + 1) * 256).reshape(-1, 256)


def choose_least(windows: LabelledWindows, config: DistillConfig) -> NDArray[np.uint8]:
    """``(K + 1,)``: the least confidence by which a pixel of each label teaches.

    The quantile of each label by itself: a first stage is less sure of rare classes, and one limit
    for all would take them away.
    """
    floor = np.ceil(config.min_confidence * 255)
    if not windows.has_confidence:
        return np.zeros(len(windows.palette) + 1, np.uint8)
    below = windows.survey.counts.cumsum(1)
    least = (below <= config.least_sure * below[:, -1:]).sum(1)
    least[below[:, -1] == 0] = 0
    return np.asarray(np.maximum(np.minimum(least, 255), floor), np.uint8)
