"""Agreement of predicted labels with the truth: IoU, Dice and area, counted as in the paper."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsiseg.annotations import BACKGROUND
from wsiseg.errors import DataError

__all__ = ["Scores", "confusion_matrix", "measure", "score"]

Labels = NDArray[np.uint8]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Agreement of a prediction with the truth, as fractions.

    A class that occurs in neither is NaN in the tuples and left out of the means; `absent` lists
    it.
    """

    miou: float
    """Mean IoU over the classes present, background left out."""
    mdice: float
    """Mean Dice over the classes present, background left out."""
    iou: tuple[float, ...]
    """Intersection over union per class; background pixels count in the unions."""
    dice: tuple[float, ...]
    """Dice per class."""
    fwiou: float
    """IoU weighted by the frequency in the truth, background included."""
    area_error: tuple[float, ...]
    """``|predicted - true| / true`` pixels per class; NaN where the class has no true pixel."""
    absent: tuple[int, ...]
    """Classes that occur neither in the truth nor in the prediction."""


def confusion_matrix(truth: Labels, predicted: Labels, classes: int) -> NDArray[np.int64]:
    """Count pixels by true and predicted class.

    Parameters
    ----------
    truth, predicted
        uint8 of one shape: 0 .. `classes` - 1, or 255 for background.
    classes
        K.

    Returns
    -------
    ``(K + 1, K + 1)`` int64: rows truth, columns prediction, background last. Matrices of several
    images add up.

    Raises
    ------
    DataError
        If the shapes differ, or a label is neither a class nor background.
    """
    if truth.shape != predicted.shape:
        raise DataError(
            f"truth is {truth.shape}, prediction {predicted.shape}; compare rasters of one shape"
        )
    number = np.full(256, -1, np.int64)
    number[:classes], number[BACKGROUND] = np.arange(classes), classes
    rows, cols = number[truth.ravel()], number[predicted.ravel()]
    for name, values, raw in (("truth", rows, truth), ("prediction", cols, predicted)):
        if values.size and values.min() < 0:
            odd = np.unique(raw.ravel()[values < 0])[:5].tolist()
            raise DataError(
                f"{name} holds the labels {odd}; with {classes} classes they are 0 to "
                f"{classes - 1}, and {BACKGROUND} for background"
            )
    side = classes + 1
    return np.bincount(rows * side + cols, minlength=side * side).reshape(side, side)


def score(confusion: NDArray[np.int64]) -> Scores:
    """Compute the metrics of a confusion matrix ``(K + 1, K + 1)`` of `confusion_matrix`.

    Background is counted in every union and in `fwiou`, never in the means. A class that occurs
    nowhere does not make the mean NaN, as it does in the released code.
    """
    true, predicted = confusion.sum(1), confusion.sum(0)
    iou, dice, fwiou = measure(confusion)
    classes = len(iou) - 1
    area = _ratio(np.abs(predicted - true), true)[:classes]
    return Scores(
        miou=_mean(iou[:classes]),
        mdice=_mean(dice[:classes]),
        iou=tuple(iou[:classes].tolist()),
        dice=tuple(dice[:classes].tolist()),
        fwiou=float(fwiou),
        area_error=tuple(area.tolist()),
        absent=tuple(np.flatnonzero(np.isnan(iou[:classes])).tolist()),
    )


def measure(confusion: NDArray[np.int64]) -> tuple[Array, Array, Array]:
    """IoU ``(..., K + 1)``, Dice likewise and fwIoU ``(...)`` of matrices ``(..., K + 1, K + 1)``.

    NaN where a class occurs nowhere, and where there is nothing to count.
    """
    hit = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    true, predicted = confusion.sum(-1), confusion.sum(-2)
    iou, dice = _ratio(hit, true + predicted - hit), _ratio(2 * hit, true + predicted)
    total = true.sum(-1)
    weighted = np.nansum(true * iou, axis=-1)
    return iou, dice, _ratio(weighted, total)


def _ratio(part: NDArray[np.number], whole: NDArray[np.number]) -> NDArray[np.float64]:
    """``part / whole``, NaN where whole is 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, float), np.asarray(whole, float))
    out = np.full(part.shape, np.nan)
    np.divide(part, whole, out=out, where=whole != 0)
    return out


def _mean(values: NDArray[np.float64]) -> float:
    """Mean, ignoring NaN; NaN if all values are."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
