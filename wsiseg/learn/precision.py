"""Average precision of each class on tiles, with a random guess for comparison."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["average_precision", "mean_known", "precision_by_class"]


def average_precision(scores: NDArray[np.float32], labels: NDArray[np.bool_]) -> float:
    """Return the mean precision at each tile that shows the class, by falling score.

    Ties share a rank. NaN if all labels are equal.
    """
    if labels.all() or not labels.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(labels[order])
    # Tiles with equal scores are ranked together, at the last of them.
    is_last = np.append(np.diff(scores[order]) != 0, True)
    ends = np.flatnonzero(is_last)
    precision = hits[ends] / (ends + 1)
    gains = np.diff(hits[ends], prepend=0)
    return float((precision * gains).sum() / labels.sum())


def precision_by_class(
    scores: NDArray[np.float32], labels: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return ``(2, K)``: each class's average precision over the tiles where it is known, and the
    share of these that show it, which is what a random guess reaches.

    Parameters
    ----------
    scores
        ``(N, K)`` class logits.
    labels
        ``(N, K)``: 1, 0, or NaN if unknown.
    """
    precision = np.full((2, labels.shape[1]), np.nan)
    for k in range(labels.shape[1]):
        known = np.isfinite(labels[:, k])
        shown = labels[known, k] == 1
        precision[0, k] = average_precision(scores[known, k], shown)
        if np.isfinite(precision[0, k]):
            precision[1, k] = shown.mean()
    return precision


def mean_known(values: NDArray[np.float64], axis: int = 0) -> NDArray[np.float64]:
    """Return the mean without NaN values; NaN if all are."""
    known = np.isfinite(values)
    count = known.sum(axis)
    total = np.where(known, values, 0).sum(axis)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))
