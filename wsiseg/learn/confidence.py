"""Recalibrate a model that started from a calibrated one, as its weights have changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch

from wsiseg.learn.fit import Places
from wsiseg.model.calibration import fit_temperature
from wsiseg.model.card_file import with_calibration
from wsiseg.model.checkpoint import read_info

__all__ = ["calibrate_from_folds", "start_calibration"]

_MIN_WINDOWS = 10
"""Held-out windows of a single class that a calibration needs."""

Calibration = list[tuple[float, float]]


def start_calibration(start: str | None, classes: Sequence[str]) -> Calibration:
    """Return scale and offset of each of `classes` in the checkpoint `start`.

    New classes get the median scale and no offset; the list is empty without a calibration.
    """
    info = None if start is None else read_info(start)
    if info is None or not info.calibration:
        return []
    own = dict(zip(info.names, info.calibration, strict=True))
    new = (median(scale for scale, _ in info.calibration), 0.0)
    return [own.get(name, new) for name in classes]


def calibrate_from_folds(checkpoint: Path, former: Calibration, folds: Sequence[Places]) -> str:
    """Calibrate a checkpoint in place on the held-out tiles of folds; return what was done.

    Its classes keep the scales and offsets `former`, times one factor that is fitted: how classes
    relate to each other cannot be learned from a few windows. The folds' models were trained like
    this one, and without the tiles that they predicted.
    """
    classes = np.concatenate([np.empty(0, np.int64), *(fold.classes for fold in folds)])
    count = len(np.unique(np.concatenate([np.empty(0), *(fold.tiles for fold in folds)])))
    pairs = np.array(former)
    enough = count >= _MIN_WINDOWS and len(np.unique(classes)) > 1
    if enough:
        logits = np.concatenate([fold.logits for fold in folds]) * pairs[:, 0] + pairs[:, 1]
        pairs *= fit_temperature(torch.from_numpy(logits), torch.from_numpy(classes), count)
    with_calibration(checkpoint, pairs.tolist(), checkpoint, overwrite=True)
    if enough:
        return f"confidence was calibrated again, on {count} held-out windows"
    return (
        f"confidence keeps the calibration of the checkpoint: {count} of the held-out windows show "
        f"a single class; to calibrate again needs {_MIN_WINDOWS}, of two classes"
    )
