"""Choose the best epoch by patches that are not trained on."""

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
        """Hash of what it scores on, as that affects which epoch is chosen."""
        ...

    def check(self, source: CamSource) -> None:
        """Refuse, before training, a model that could not be scored."""
        ...

    def __call__(self, source: CamSource) -> float:
        """The score of a model that is in evaluation mode."""
        ...


@dataclass(frozen=True)
class HeldOut:
    """Scores on labelled patches that are not trained on, as a `Validate`."""

    measure: ClassVar[str] = "minus the mean class loss of the patches held out"
    patches: PatchSource

    @property
    def identity(self) -> str:
        """The identity of the patches."""
        return self.patches.identity

    def check(self, source: CamSource) -> None:
        """Refuse patches with another number of classes, or of a side that the model does not take.

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
                logits = source.pool(source.look(images), cells).float().cpu()
            logits = logits[:, : labels.shape[1]]
            known = labels.isfinite()
            total += F.binary_cross_entropy_with_logits(
                logits[known], labels[known], reduction="sum"
            ).item()
        return -total / max(1, int(np.isfinite(self.patches.labels).sum()))


@dataclass(frozen=True)
class Part:
    """A subset of a source's patches, as a `PatchSource`."""

    source: PatchSource
    which: tuple[int, ...]
    """Their indices in the source."""

    def __len__(self) -> int:
        return len(self.which)

    @property
    def labels(self) -> NDArray[np.float32]:
        """``(N, K)`` float32: 1 where the class is present, 0 where not, NaN where unknown."""
        return np.asarray(self.source.labels[list(self.which)])

    @property
    def weights(self) -> NDArray[np.float32]:
        """``(N,)`` float32: weight of each patch."""
        return np.asarray(self.source.weights[list(self.which)])

    @property
    def known(self) -> NDArray[np.bool_] | None:
        """``(N, c, c)`` bool: the cells of each patch that its labels describe; None for all."""
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
        """Hash of the source and of the subset."""
        return digest_of(self.source.identity, self.which)

    @property
    def cases(self) -> Sequence[str | None]:
        """The patient or slide of each patch, None where unknown."""
        cases = self.source.cases
        return [cases[number] for number in self.which]

    def name(self, index: int) -> str:
        """Name of the patch, for messages."""
        return self.source.name(self.which[index])

    def read(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """``(B, side, side, 3)`` uint8 RGB."""
        return self.source.read([self.which[index] for index in indices])


def hold_out(
    patches: PatchSource, fraction: float, classes: Sequence[str], seed: int = 0
) -> tuple[Part, Part]:
    """Split patches into those to train on and those held out, about `fraction` of them.

    Whole cases are held out if names or a column give them; a case that alone shows a class stays
    in training. Only if no case is known at all are patches held out one by one.

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
    training, rest = (tuple(np.flatnonzero(which).tolist()) for which in (~held, held))
    return Part(patches, training), Part(patches, rest)


def _choose_cases(
    cases: NDArray[np.str_], labels: NDArray[np.float32], fraction: float, seed: int
) -> NDArray[np.bool_]:
    """Choose ``(N,)`` patches to hold out, case by case in an order that depends on their names."""
    shows = labels == 1  # not what is unknown (NaN)
    held = np.zeros(len(cases), bool)
    limit = round(fraction * len(cases))
    for case in sorted(set(cases.tolist()), key=lambda case: _mix(seed, case)):
        candidate = held | (cases == case)
        kept = shows[~candidate].any(0) | ~shows.any(0)
        if candidate.sum() <= limit and kept.all():
            held = candidate
    return held


def _mix(seed: int, case: str) -> bytes:
    return hashlib.sha256(f"{seed} {case}".encode("utf-8", "surrogatepass")).digest()
