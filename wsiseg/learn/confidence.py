"""Recalibrate a model that started from a calibrated one, as its weights have changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from wsiseg.learn.fit import Places
from wsiseg.model.calibration import fit_temperature
from wsiseg.model.card_file import with_calibration

__all__ = ["calibrate_from_folds"]

_MIN_WINDOWS = 10
"""Held-out windows of a single class that a calibration needs."""


def calibrate_from_folds(checkpoint: Path, folds: Sequence[Places]) -> str:
    """Calibrate a checkpoint in place on the held-out tiles of folds; return what was done.

    The folds' models were trained like this one, and without the tiles that they predicted.
    """
    classes = np.concatenate([np.empty(0, np.int64), *(fold.classes for fold in folds)])
    count = len(np.unique(np.concatenate([np.empty(0), *(fold.tiles for fold in folds)])))
    if count < _MIN_WINDOWS or len(np.unique(classes)) < 2:
        return (
            f"the confidence of maps is as trained, not calibrated: {count} of the held-out "
            f"windows show a single class; calibration needs {_MIN_WINDOWS}, of two classes"
        )
    logits = torch.from_numpy(np.concatenate([fold.logits for fold in folds]))
    scale = fit_temperature(logits, torch.from_numpy(classes), count)
    with_calibration(checkpoint, [(scale, 0.0)] * logits.shape[1], checkpoint, overwrite=True)
    return f"confidence was calibrated on {count} held-out windows: logits times {scale:.2f}"
