"""Intervals of the scores: percentile bootstrap over cases or images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsiseg.errors import DataError
from wsiseg.evaluate.scores import measure

__all__ = ["Intervals", "bootstrap_intervals", "draw_means"]

Range = tuple[float, float]
_BATCH = 256  # resamples whose matrices are in memory together


@dataclass(frozen=True)
class Intervals:
    """Lower and upper end of each score's interval; named as in `Scores`."""

    miou: Range
    mdice: Range
    iou: tuple[Range, ...]
    dice: tuple[Range, ...]
    fwiou: Range
    level: float
    """Share of the resamples inside the interval, such as 0.95."""
    resamples: int
    """Number of resamples."""
    seed: int
    """Seed of the draws."""
    units: int = 0
    """Number of cases or patches drawn from."""
    over_cases: bool = False
    """Whether cases were drawn, each with all of its patches, rather than patches."""


def bootstrap_intervals(
    confusions: NDArray[np.int64], *, resamples: int = 1000, seed: int = 0, level: float = 0.95,
    cases: Sequence[str] | None = None,
) -> Intervals:  # fmt: skip
    """Draw as many cases as there are, with replacement, `resamples` times, and score each draw.

    Patches of one slide resemble each other: intervals over patches are too narrow for new slides,
    and say only how well the number is known on slides like these.

    Parameters
    ----------
    confusions
        ``(N, K + 1, K + 1)`` int64, one `confusion_matrix` per image.
    cases
        The case of each image; None if unknown: images are drawn one by one.

    Raises
    ------
    DataError
        If there is no image.
    """
    if cases is not None:
        confusions = _sum_cases(confusions, cases)
    ends = _ends(_draw(confusions, resamples, seed), level)
    classes = confusions.shape[-1] - 1
    return Intervals(
        miou=ends[0], mdice=ends[1], fwiou=ends[2], iou=tuple(ends[3 : 3 + classes]),
        dice=tuple(ends[3 + classes :]), level=level, resamples=resamples, seed=seed,
        units=len(confusions), over_cases=cases is not None,
    )  # fmt: skip


def draw_means(
    confusions: NDArray[np.int64], *, resamples: int = 1000, seed: int = 0,
    cases: Sequence[str] | None = None,
) -> NDArray[np.float64]:  # fmt: skip
    """``(resamples,)`` mean IoU of each draw of `bootstrap_intervals`; same seed, same draws."""
    if cases is not None:
        confusions = _sum_cases(confusions, cases)
    return _draw(confusions, resamples, seed)[:, 0]


def _sum_cases(confusions: NDArray[np.int64], cases: Sequence[str]) -> NDArray[np.int64]:
    """Sum the matrices of each case, in the order of their first images."""
    order = {case: at for at, case in enumerate(dict.fromkeys(cases))}
    summed = np.zeros((len(order), *confusions.shape[1:]), np.int64)
    np.add.at(summed, [order[case] for case in cases], confusions)
    return summed


def _draw(confusions: NDArray[np.int64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Return one row of `_score_all` per draw."""
    count, side = confusions.shape[0], confusions.shape[-1]
    if count == 0:
        raise DataError("there is no image to draw from; the bootstrap needs at least one")
    random, flat = np.random.default_rng(seed), confusions.reshape(count, -1)
    rows = []
    for start in range(0, resamples, _BATCH):
        draws = min(_BATCH, resamples - start)
        # Only how often each image is drawn matters: the matrices of a draw are summed.
        times = random.multinomial(count, np.full(count, 1 / count), size=draws)
        rows.append(_score_all((times @ flat).reshape(draws, side, side)))
    return np.concatenate(rows)


def _score_all(confusions: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return one row per draw: mIoU, mDice, fwIoU, then IoU and Dice of each class."""
    iou, dice, fwiou = measure(confusions)
    iou, dice = iou[:, :-1], dice[:, :-1]
    means = [_mean_known(values) for values in (iou, dice)]
    return np.column_stack([*means, fwiou, iou, dice])


def _mean_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of each row, ignoring NaN; NaN where all values are."""
    known = ~np.isnan(values)
    counts = known.sum(1)
    total = np.where(known, values, 0).sum(1)
    return np.where(counts > 0, total / np.maximum(counts, 1), np.nan)


def _ends(rows: NDArray[np.float64], level: float) -> list[Range]:
    """Percentiles of each column over the draws in which it could be computed."""
    tail = (1 - level) / 2
    ends: list[Range] = []
    for column in rows.T:
        known = column[~np.isnan(column)]
        if not known.size:
            ends.append((float("nan"), float("nan")))
            continue
        low, high = np.quantile(known, [tail, 1 - tail])
        ends.append((float(low), float(high)))
    return ends
