"""Choose the slides to hold out: all slides of a patient are on the same side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsiseg.errors import DataError
from wsiseg.labels import SlideLabels, name_in_run

__all__ = ["Fold", "group_slides", "plan_folds"]

_FEW = 6
"""Up to this many patients, each is held out on its own."""
_FOLDS = 5


class Fold(NamedTuple):
    """A set of slides to hold out."""

    name: str
    """The patients, or slides, that are held out."""
    held: NDArray[np.bool_]
    """``(S,)``: which slides are held out."""


def group_slides(slides: Sequence[SlideLabels]) -> list[str]:
    """Return the patient of each slide; the slide itself if no patient is given.

    A slide under two names is recognised by its file's identity.
    """
    names = [slide.patient or str(slide.store.path) for slide in slides]
    identities = [str(slide.store.slide["identity"]) for slide in slides]
    joined = dict(zip(names, names, strict=True))
    for name, identity in zip(names, identities, strict=True):
        other = names[identities.index(identity)]
        kept, merged = joined[other], joined[name]
        joined = {key: kept if group == merged else group for key, group in joined.items()}
    return [joined[name] for name in names]


def plan_folds(slides: Sequence[SlideLabels]) -> list[Fold]:
    """Hold out the manifest's ``test`` slides; otherwise each patient, or fifths of many patients.

    Empty if there is only one patient, so that nothing can be held out.

    Raises
    ------
    DataError
        If a patient is on both sides of the manifest's split.
    """
    groups = group_slides(slides)
    if any(slide.split for slide in slides):
        return [_given(slides, groups)]
    sizes = {name: 0 for name in groups}
    for name, slide in zip(groups, slides, strict=True):
        sizes[name] += len(slide.found.labels)
    if len(sizes) < 2:
        return []
    bins: list[list[str]] = [[] for _ in range(len(sizes) if len(sizes) <= _FEW else _FOLDS)]
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        min(bins, key=lambda held: sum(map(sizes.__getitem__, held))).append(name)
    folds = [Fold(", ".join(held), np.isin(groups, held)) for held in bins]
    return [Fold(_short(fold, slides), fold.held) for fold in folds]


def _given(slides: Sequence[SlideLabels], groups: Sequence[str]) -> Fold:
    held = np.array([slide.split == "test" for slide in slides])
    leaks = sorted(set(np.array(groups)[held]) & set(np.array(groups)[~held]))
    if leaks:
        both = [
            name_in_run(slide.store)
            for slide, name in zip(slides, groups, strict=True)
            if name in leaks
        ]
        raise DataError(
            f"the split of the manifest leaks: {', '.join(leaks)} is on both sides "
            f"({', '.join(both)}); put all slides of a patient on one side"
        )
    if held.all() or not held.any():
        raise DataError(
            f"the split of the manifest has {held.sum()} of {len(held)} labelled slides for test; "
            f"both sides need some"
        )
    return Fold("test", held)


def _short(fold: Fold, slides: Sequence[SlideLabels]) -> str:
    held = [slide for slide, held in zip(slides, fold.held, strict=True) if held]
    names = [slide.patient or name_in_run(slide.store) for slide in held]
    return ", ".join(dict.fromkeys(names))
