"""Compare two methods on the same images: how much better one is, and how certain that is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from wsiseg.errors import DataError
from wsiseg.evaluate.bootstrap import draw_means
from wsiseg.evaluate.run import Evaluation

__all__ = ["Difference", "compare_pair"]


class Difference(NamedTuple):
    """Difference of the mean IoU of two methods, first minus second."""

    value: float
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end."""
    p: float
    """Two-sided p-value: how often drawing other images would reverse the sign."""
    level: float
    """Level of the interval, such as 0.95."""


def compare_pair(first: Evaluation, second: Evaluation, level: float = 0.95) -> Difference:
    """Paired bootstrap over cases, or images (Efron and Tibshirani 1993, chapters 13 and 16).

    Cases are drawn if the first evaluation has them, as in `bootstrap_intervals`. Every draw takes
    the same images for both, so that what makes an image hard for both cancels out. Number of draws
    and seed are the first's.

    Raises
    ------
    DataError
        If the two are not of the same images and classes.
    """
    if first.names != second.names or first.palette.names != second.palette.names:
        raise DataError("two methods can only be compared on the same images and classes")
    config = first.config
    drawn = [
        draw_means(one.confusions, resamples=config.resamples, seed=config.seed, cases=first.cases)
        for one in (first, second)
    ]
    differences = drawn[0] - drawn[1]
    known = differences[~np.isnan(differences)]
    value = first.scores.miou - second.scores.miou
    if not known.size:
        return Difference(value, float("nan"), float("nan"), float("nan"), level)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    less = min((known <= 0).sum(), (known >= 0).sum())
    p = min(1.0, 2 * (less + 1) / (known.size + 1))  # no draw out of n does not prove that p is 0
    return Difference(value, float(low), float(high), float(p), level)
