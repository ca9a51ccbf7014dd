"""Scores of tile labels and maps, with intervals from resampling slides."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

RESAMPLES = 500


class Figure(NamedTuple):
    """A score of each class and their mean, each with its 95 % interval."""

    classes: np.ndarray
    """``(K, 3)``: value, low, high."""
    mean: np.ndarray
    """``(3,)``."""


def average_precision(truth: np.ndarray, scores: np.ndarray) -> float:
    """Compute average precision, from ``(N,)`` each; NaN without positives."""
    if not truth.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = truth[order] > 0
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean())


def macro_precision(truth: np.ndarray, scores: np.ndarray) -> float:
    """Compute the mean average precision of the classes, from ``(N, K)`` each."""
    pairs = zip(truth.T, scores.T, strict=True)
    return float(np.mean([average_precision(one, score) for one, score in pairs]))


def f1(truth: np.ndarray, found: np.ndarray) -> float:
    """Compute F1 from ``(N,)`` bool; NaN without positives."""
    hits = (truth & found).sum()
    return float(2 * hits / (truth.sum() + found.sum())) if truth.any() else float("nan")


def by_slide(
    measure: Callable[[np.ndarray, np.ndarray], float],
    truth: np.ndarray, found: np.ndarray, slides: np.ndarray, seed: int = 0,
) -> Figure:  # fmt: skip
    """Apply `measure` to each column of ``(N, K)`` over all tiles, with intervals over slides."""
    random, names = np.random.default_rng(seed), np.unique(slides)
    members = [np.flatnonzero(slides == name) for name in names]
    draws = [np.arange(len(slides))]
    for _ in range(RESAMPLES):
        chosen = random.integers(len(names), size=len(names))
        draws.append(np.concatenate([members[at] for at in chosen]))
    table = np.array(
        [[measure(truth[at, k], found[at, k]) for k in range(truth.shape[1])] for at in draws]
    )
    with np.errstate(all="ignore"):
        table = np.column_stack([table, np.nanmean(table, axis=1)])
    ends = np.nanpercentile(table[1:], (2.5, 97.5), axis=0)
    rows = np.column_stack([table[0], ends.T])
    return Figure(rows[:-1], rows[-1])


def miou(confusion: np.ndarray) -> tuple[np.ndarray, float]:
    """Compute each class's IoU from ``(K, K)`` (rows are truth), and the mean of those present."""
    both = np.diag(confusion)
    either = confusion.sum(0) + confusion.sum(1) - both
    with np.errstate(invalid="ignore"):
        iou = np.where(confusion.sum(1) > 0, both / either, np.nan)
    return iou, float(np.nanmean(iou))
