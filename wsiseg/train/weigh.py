"""Weights of the labels in the loss: 0 if unknown, more if corrected or rare."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["balance_of", "weigh_labels"]

_MAX_FACTOR = 5.0
"""Largest weight of a rare class: a few tiles do not represent a whole class."""


def weigh_labels(
    labels: NDArray[np.float32], weights: NDArray[np.float32], balance: bool
) -> NDArray[np.float32] | None:
    """``(N, K)`` weights of the class loss, with the mean 1; None if every one is 1.

    Parameters
    ----------
    labels
        ``(N, K)``: 1, 0, or NaN where unknown.
    weights
        ``(N,)`` of the patches.
    balance
        Whether the two answers of a class are weighted against each other (`balance_of`).
    """
    known = np.isfinite(labels)
    result = weights[:, None] * known
    if balance:
        factors = balance_of(labels, weights)
        result = result * np.where(labels == 1, factors[:, 1], factors[:, 0])
    if not result.size or (result == result.flat[0]).all():
        return None
    return np.asarray(result / result.mean(), np.float32)


def balance_of(labels: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """``(K, 2)`` factors of the labels 0 and 1 of each class.

    The square root of what would make both count the same, so that a class of a few tiles does not
    get too much weight; 1 where only one answer occurs.
    """
    sums = np.stack([(weights[:, None] * (labels == answer)).sum(0) for answer in (0, 1)], 1)
    both = (sums > 0).all(1, keepdims=True)
    ideal = sums.sum(1, keepdims=True) / np.where(sums > 0, 2 * sums, 1)
    return np.where(both, np.minimum(np.sqrt(ideal), _MAX_FACTOR), 1.0)
