"""A calibration for a model that began from a calibrated one: that was of other weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from wsiseg.learn.fit import Places
from wsiseg.model.calibration import fit_temperature
from wsiseg.model.card_file import with_calibration

__all__ = ["calibrate_from_folds"]

_LEAST = 10
"""Windows of one class that it takes."""


def calibrate_from_folds(checkpoint: Path, found: Sequence[Places]) -> str:
    """Calibrate a checkpoint in place by what folds `found` on tiles held out; what was done.

    Their models learned as this one did, and saw nothing of the tiles that they were asked about.
    """
    classes = np.concatenate([np.empty(0, np.int64), *(one.classes for one in found)])
    count = len(np.unique(np.concatenate([np.empty(0), *(one.tiles for one in found)])))
    if count < _LEAST or len(np.unique(classes)) < 2:
        return (
            f"the confidence of maps is as trained, not calibrated: of the windows held out, "
            f"{count} show one class only; it takes {_LEAST}, of two classes"
        )
    logits = torch.from_numpy(np.concatenate([one.logits for one in found]))
    scale = fit_temperature(logits, torch.from_numpy(classes), count)
    with_calibration(checkpoint, [(scale, 0.0)] * logits.shape[1], checkpoint, overwrite=True)
    return f"confidence was calibrated on {count} windows held out: logits times {scale:.2f}"
