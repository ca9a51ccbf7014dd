"""How much each label counts in the loss: nothing if unknown, more if corrected or rare."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["balance_of", "weigh_labels"]

_MOST = 5.0
"""A rare class counts at most so many times as much: few tiles are not a whole class."""


def weigh_labels(
    labels: NDArray[np.float32], weights: NDArray[np.float32], balance: bool
) -> NDArray[np.float32] | None:
    """``(N, K)`` weights of the class loss, with the mean 1; None if every one is 1.

    Parameters
    ----------
    labels
        ``(N, K)``: 1, 0, or NaN where nobody knows.
    weights
        ``(N,)`` of the patches.
    balance
        Whether the two answers of a class are brought nearer to each other (`balance_of`).
    """
    known = np.isfinite(labels)
    found = weights[:, None] * known
    if balance:
        factors = balance_of(labels, weights)
        found = found * np.where(labels == 1, factors[:, 1], factors[:, 0])
    if not found.size or (found == found.flat[0]).all():
        return None
    return np.asarray(found / found.mean(), np.float32)


def balance_of(labels: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """``(K, 2)``: what the labels 0 and 1 of each class are multiplied by.

    The square root of what would make both count alike, so that a class of a few tiles is not
    believed beyond its means; 1 where there is but one answer.
    """
    sums = np.stack([(weights[:, None] * (labels == answer)).sum(0) for answer in (0, 1)], 1)
    both = (sums > 0).all(1, keepdims=True)
    ideal = sums.sum(1, keepdims=True) / np.where(sums > 0, 2 * sums, 1)
    return np.where(both, np.minimum(np.sqrt(ideal), _MOST), 1.0)
