"""What chooses the best epoch: patches that are not trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from wsiseg.cases import group_cases
from wsiseg.config import digest_of
from wsiseg.errors import DataError
from wsiseg.model.device import to_images
from wsiseg.model.source import CamSource
from wsiseg.train.patches import PatchSource

__all__ = ["HeldOut", "Part", "Validate", "hold_out"]

_BATCH = 32


class Validate(Protocol):
    """Scores the model after each epoch; the best epoch is the first with the highest score."""

    measure: ClassVar[str]
    """What the score is, in a few words."""

    @property
    def identity(self) -> str:
        """Hash of what it scores on: another may choose another epoch."""
        ...

    def check(self, source: CamSource) -> None:
        """Refuse, before the training, a model that could not be scored."""
        ...

    def __call__(self, source: CamSource) -> float:
        """The score of a model that is in evaluation mode."""
        ...


@dataclass(frozen=True)
class HeldOut:
    """Labelled patches that are not trained on; keeps the promise `Validate`."""

    measure: ClassVar[str] = "minus the mean class loss of the patches held out"
    patches: PatchSource

    @property
    def identity(self) -> str:
        """That of the patches."""
        return self.patches.identity

    def check(self, source: CamSource) -> None:
        """Refuse patches of another number of classes, or of a side that the encoder lacks.

        Raises
        ------
        DataError
            If they do not fit.
        """
        side, classes = self.patches.side, self.patches.labels.shape[1]
        # Labels may leave out kinds of background, the last channels.
        if classes not in (source.channels, len(source.palette)):
            raise DataError(
                f"the patches held out are labelled with {classes} classes, the model has "
                f"{source.channels}"
            )
        if not source.sides.fits(side):
            raise DataError(
                f"the patches held out are {side} px a side; {source.name} takes {source.sides}"
            )

    def __call__(self, source: CamSource) -> float:
        """Minus the mean binary cross entropy of the logits of known labels, in float32."""
        total = 0.0
        for start in range(0, len(self.patches), _BATCH):
            numbers = range(start, min(start + _BATCH, len(self.patches)))
            images = to_images(self.patches.read(numbers), source.device)
            labels = torch.from_numpy(self.patches.labels[start : numbers.stop])
            cells = None
            if self.patches.known is not None:
                part = self.patches.known[start : numbers.stop]
                cells = torch.from_numpy(part).to(source.device)
            with torch.inference_mode():
                logits = source.pool(source.cams(images), cells).float().cpu()
            logits = logits[:, : labels.shape[1]]
            known = labels.isfinite()
            total += F.binary_cross_entropy_with_logits(
                logits[known], labels[known], reduction="sum"
            ).item()
        return -total / max(1, int(np.isfinite(self.patches.labels).sum()))


@dataclass(frozen=True)
class Part:
    """Some of the patches of a source; keeps the promise `PatchSource`."""

    source: PatchSource
    which: tuple[int, ...]
    """Their numbers there."""

    def __len__(self) -> int:
        return len(self.which)

    @property
    def labels(self) -> NDArray[np.float32]:
        """``(N, K)`` float32: 1 where the class shows, 0 where not, NaN where nobody knows."""
        return np.asarray(self.source.labels[list(self.which)])

    @property
    def weights(self) -> NDArray[np.float32]:
        """``(N,)`` float32: how much each patch counts."""
        return np.asarray(self.source.weights[list(self.which)])

    @property
    def known(self) -> NDArray[np.bool_] | None:
        """``(N, c, c)`` bool: the cells of each patch that its labels are of; None for all."""
        known = self.source.known
        return None if known is None else np.asarray(known[list(self.which)])

    @property
    def side(self) -> int:
        """Side of every patch in pixels."""
        return self.source.side

    @property
    def mpp(self) -> float | None:
        """µm/px of the patches, or None where only the user knows it."""
        return self.source.mpp

    @property
    def identity(self) -> str:
        """Hash of the whole, and of which these are."""
        return digest_of(self.source.identity, self.which)

    @property
    def cases(self) -> Sequence[str | None]:
        """The patient or slide of each patch, None where nobody says."""
        cases = self.source.cases
        return [cases[number] for number in self.which]

    def name(self, index: int) -> str:
        """What a person calls the patch."""
        return self.source.name(self.which[index])

    def read(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """``(B, side, side, 3)`` uint8 RGB."""
        return self.source.read([self.which[index] for index in indices])


def hold_out(
    patches: PatchSource, fraction: float, classes: Sequence[str], seed: int = 0
) -> tuple[Part, Part]:
    """Split patches into those to train on and those held out, some `fraction` of them.

    Whole cases are held out where names or a column tell them; a case that alone shows a class
    stays in training. Only where no case is known at all is it patches one by one.

    Raises
    ------
    DataError
        If all patches are of one case, or none can be held out.
    """
    names = [patches.name(number) for number in range(len(patches))]
    given = patches.cases
    cases = group_cases(names, given)
    if cases is None:
        if any(given):
            raise DataError(
                f"all {len(patches)} patches are of the case {given[0]!r}, so none can be held "
                f"out: give a folder of other patches to --validate, or a column 'case'"
            )
        cases = [f"{number}" for number in range(len(patches))]
    held = _choose_cases(np.array(cases), patches.labels, fraction, seed)
    if not held.any():
        raise DataError(
            f"nothing can be held out of {len(patches)} patches of {len(set(cases))} cases: each "
            f"case is more than a fraction of {fraction:g}, or alone shows one of "
            f"{', '.join(classes)}"
        )
    kept, out = (tuple(np.flatnonzero(which).tolist()) for which in (~held, held))
    return Part(patches, kept), Part(patches, out)


def _choose_cases(
    cases: NDArray[np.str_], labels: NDArray[np.float32], fraction: float, seed: int
) -> NDArray[np.bool_]:
    """``(N,)``: the patches held out, case by case in an order that hangs on their names."""
    held = np.zeros(len(cases), bool)
    room = round(fraction * len(cases))
    for case in sorted(set(cases.tolist()), key=lambda case: _mix(seed, case)):
        tried = held | (cases == case)
        shown = labels[~tried].any(0) | ~labels.any(0)
        if tried.sum() <= room and shown.all():
            held = tried
    return held


def _mix(seed: int, case: str) -> bytes:
    return hashlib.sha256(f"{seed} {case}".encode()).digest()
