"""How well tiles are told apart: average precision of each class, beside the simplest guess."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["average_precision", "mean_known", "precision_by_class"]


def average_precision(scores: NDArray[np.float32], labels: NDArray[np.bool_]) -> float:
    """Mean precision at each tile that shows the class, best score first; ties share their place.

    NaN where all labels are alike.
    """
    if labels.all() or not labels.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(labels[order])
    # Of equal scores the last decides: nobody can look at one of them before the others.
    last = np.append(np.diff(scores[order]) != 0, True)
    ends = np.flatnonzero(last)
    precision = hits[ends] / (ends + 1)
    gained = np.diff(hits[ends], prepend=0)
    return float((precision * gained).sum() / labels.sum())


def precision_by_class(
    scores: NDArray[np.float32], labels: NDArray[np.float32]
) -> NDArray[np.float64]:
    """``(2, K)``: the average precision of each class over the tiles of which it is known, and the
    share of them that show it, which is what any guess without looking reaches.

    Parameters
    ----------
    scores
        ``(N, K)`` class logits.
    labels
        ``(N, K)``: 1, 0, or NaN where nobody knows.
    """
    found = np.full((2, labels.shape[1]), np.nan)
    for at in range(labels.shape[1]):
        known = np.isfinite(labels[:, at])
        shown = labels[known, at] == 1
        found[0, at] = average_precision(scores[known, at], shown)
        if np.isfinite(found[0, at]):
            found[1, at] = shown.mean()
    return found


def mean_known(values: NDArray[np.float64], axis: int = 0) -> NDArray[np.float64]:
    """Mean over what is not NaN; NaN where all is."""
    known = np.isfinite(values)
    count = known.sum(axis)
    total = np.where(known, values, 0).sum(axis)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))
