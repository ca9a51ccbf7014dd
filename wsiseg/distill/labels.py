"""The training data of the second stage: image windows with labels from a first stage."""

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
"""Label of a pixel that the first stage did not label."""


class Read(NamedTuple):
    """A batch of windows."""

    images: NDArray[np.uint8]
    """``(B, side, side, 3)`` RGB."""
    labels: NDArray[np.uint8]
    """``(B, side, side)``: 0 .. K - 1, K for background, or `UNKNOWN`."""
    confidence: NDArray[np.uint8]
    """``(B, side, side)``: confidence of the label in 255ths."""


@dataclass(frozen=True)
class Survey:
    """The contents of all windows, counted once."""

    counts: NDArray[np.int64]
    """``(K + 1, 256)`` pixels by label and confidence; the last label is background."""
    shown: NDArray[np.bool_]
    """``(N, K)`` whether each window shows each class."""


@dataclass(frozen=True)
class LabelledWindows:
    """Square windows, the labels of their pixels and the origin of these.

    Implements `PatchSource`; the labels of a window are the classes that it shows.
    """

    palette: Palette
    """Names and colours of the K classes."""
    first_stage: dict[str, str]
    """Facts about what made the labels, by name."""
    has_confidence: bool
    """Whether the first stage gives confidence; if not, every label counts as certain."""
    calibrated: bool
    """Whether its confidence is a calibrated probability."""
    side: int
    """Side of every window in pixels."""
    tile: int
    """Side in pixels of the tiles or patches of the first stage."""
    mpp: float | None
    """µm/px; None if unknown."""
    identity: str
    """Hash of pixels and labels, independent of their location."""
    names: tuple[str, ...]
    """Readable name of each window."""
    cases: tuple[str | None, ...]
    """Patient or slide of each window; None if unknown."""
    survey: Survey
    reader: Callable[[Sequence[int]], Read]
    """Reads windows by their numbers."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def labels(self) -> NDArray[np.float32]:
        """``(N, K)`` float32: 1 if the window shows the class, else 0."""
        return self.survey.shown.astype(np.float32)

    @property
    def weights(self) -> NDArray[np.float32]:
        """``(N,)`` float32: all 1."""
        return np.ones(len(self), np.float32)

    @property
    def known(self) -> None:
        """None: labels describe whole windows."""
        return None

    def name(self, index: int) -> str:
        """Return the file's name, or slide and position."""
        return self.names[index]

    def read(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Read ``(B, side, side, 3)`` uint8 RGB."""
        return self.reader(indices).images

    def pick(self, indices: Sequence[int]) -> LabelledWindows:
        """Select some windows; `survey.counts`, which sets limits, still covers all of them."""
        chosen = list(indices)
        return LabelledWindows(
            self.palette, self.first_stage, self.has_confidence, self.calibrated, self.side,
            self.tile, self.mpp, digest_of(self.identity, chosen),
            tuple(self.names[n] for n in chosen),
            tuple(self.cases[n] for n in chosen),
            Survey(self.survey.counts, self.survey.shown[chosen]),
            partial(_read_chosen, self.reader, tuple(chosen)),
        )  # fmt: skip


def _read_chosen(
    reader: Callable[[Sequence[int]], Read], chosen: tuple[int, ...], indices: Sequence[int]
) -> Read:
    return reader([chosen[index] for index in indices])


def count_window(
    labels: NDArray[np.uint8], confidence: NDArray[np.uint8], classes: int
) -> NDArray[np.int64]:
    """Count pixels by label and confidence ``(K + 1, 256)``, without those `UNKNOWN`."""
    known = labels <= classes
    pairs = labels[known].astype(np.int64) * 256 + confidence[known]
    return np.bincount(pairs, minlength=(classes + 1) * 256).reshape(-1, 256)


def choose_least(windows: LabelledWindows, config: DistillConfig) -> NDArray[np.uint8]:
    """Choose the lowest confidence ``(K + 1,)`` at which a pixel of each label is used.

    Each label has its own quantile: a first stage is less sure of rare classes, and a common limit
    would remove them.
    """
    floor = np.ceil(config.min_confidence * 255)
    if not windows.has_confidence:
        return np.zeros(len(windows.palette) + 1, np.uint8)
    below = windows.survey.counts.cumsum(1)
    least = (below <= config.least_sure * below[:, -1:]).sum(1)
    least[below[:, -1] == 0] = 0
    return np.asarray(np.maximum(np.minimum(least, 255), floor), np.uint8)
