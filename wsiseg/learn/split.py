"""Which slides are held out: never a tile of a patient whose other tiles are learned from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsiseg.errors import DataError
from wsiseg.labels import SlideLabels

__all__ = ["Fold", "group_slides", "plan_folds"]

_FEW = 6
"""Up to so many patients each is held out once by itself."""
_FOLDS = 5


class Fold(NamedTuple):
    """One way to hold slides out."""

    name: str
    """Who is held out."""
    held: NDArray[np.bool_]
    """``(S,)``: the slides that are."""


def group_slides(slides: Sequence[SlideLabels]) -> list[str]:
    """``(S,)`` the patient of each slide; the slide itself where nobody says of whom it is.

    One slide under two names is one, by what identifies its file.
    """
    names = [slide.patient or str(slide.store.path) for slide in slides]
    identities = [str(slide.store.slide["identity"]) for slide in slides]
    joined = dict(zip(names, names, strict=True))
    for name, identity in zip(names, identities, strict=True):
        other = names[identities.index(identity)]
        kept, gone = joined[other], joined[name]
        joined = {one: kept if group == gone else group for one, group in joined.items()}
    return [joined[name] for name in names]


def plan_folds(slides: Sequence[SlideLabels]) -> list[Fold]:
    """The slides of the manifest's ``test``; else each patient in turn, or fifths if they are many.

    Empty if there is but one patient: then nothing can be held out.

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
        min(bins, key=lambda held: sum(sizes[one] for one in held)).append(name)
    folds = [Fold(", ".join(held), np.isin(groups, held)) for held in bins]
    return [Fold(_short(fold, slides), fold.held) for fold in folds]


def _given(slides: Sequence[SlideLabels], groups: Sequence[str]) -> Fold:
    held = np.array([slide.split == "test" for slide in slides])
    leaks = sorted(set(np.array(groups)[held]) & set(np.array(groups)[~held]))
    if leaks:
        both = [
            slide.store.path.stem
            for slide, name in zip(slides, groups, strict=True)
            if name in leaks
        ]
        raise DataError(
            f"the split of the manifest leaks: {', '.join(leaks)} is on both sides "
            f"({', '.join(both)}); put all slides of a patient on one"
        )
    if held.all() or not held.any():
        raise DataError(
            f"the split of the manifest has {held.sum()} labelled slides for test of {len(held)}; "
            f"both sides need some"
        )
    return Fold("test", held)


def _short(fold: Fold, slides: Sequence[SlideLabels]) -> str:
    named = [s.patient or s.store.path.stem for s, h in zip(slides, fold.held, strict=True) if h]
    return ", ".join(dict.fromkeys(named))
