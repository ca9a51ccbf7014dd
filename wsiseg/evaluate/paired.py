"""Two methods on the same images: how much better one is, and whether other images would say so."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from wsiseg.errors import DataError
from wsiseg.evaluate.bootstrap import draw_means
from wsiseg.evaluate.run import Evaluation

__all__ = ["Difference", "compare_pair"]


class Difference(NamedTuple):
    """Of the mean IoU of two methods, first less second."""

    value: float
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end."""
    p: float
    """How often drawing other images would turn the sign, two-sided."""
    level: float
    """Of the interval, such as 0.95."""


def compare_pair(first: Evaluation, second: Evaluation, level: float = 0.95) -> Difference:
    """Paired bootstrap over cases, or images (Efron and Tibshirani 1993, chapters 13 and 16).

    Cases are drawn where the first knows them, as in `bootstrap_intervals`.
    Every draw takes the same images for both, so that what makes an image hard for both does not
    count. Number of draws and seed are the first's.

    Raises
    ------
    DataError
        If the two are not of the same images and classes.
    """
    if first.names != second.names or first.palette.names != second.palette.names:
        raise DataError("two methods can be compared on the same images and classes only")
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
    p = min(1.0, 2 * (less + 1) / (known.size + 1))  # none of n draws is no proof of zero
    return Difference(value, float(low), float(high), float(p), level)
