"""Calibrate a checkpoint's confidence on unseen patches that each show one class only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsiseg.compute import Progress
from wsiseg.errors import DataError
from wsiseg.model.calibration import fit_calibration
from wsiseg.model.card_file import with_calibration
from wsiseg.model.device import to_images
from wsiseg.model.load import load_source
from wsiseg.model.source import CamSource
from wsiseg.train.patches import PatchSource

__all__ = ["calibrate_checkpoint", "read_cells"]

_BATCH, _CELLS = 32, 7


def calibrate_checkpoint(
    checkpoint: str | Path,
    patches: PatchSource,
    out: str | Path,
    *,
    encoder_options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write a copy of a checkpoint whose confidence was fitted on `patches`.

    Only patches that show one class are used, as the class of each of their cells is known. They
    must be of slides that the model was not trained on, or its confidence will be too high.

    Parameters
    ----------
    checkpoint
        A file, or a shipped checkpoint's name.
    patches
        From `load_patches` or `load_tiles`, with the checkpoint's names as classes; kinds of
        background, the last of them, may be left out.
    encoder_options
        As in `load_checkpoint`.
    progress
        Called with ("calibrate", patches done, patches).

    Raises
    ------
    CheckpointError
        If the checkpoint cannot be used.
    DataError
        If no patch shows one class only, or they do not fit the model.
    ConfigError
        If `out` exists and is not to be overwritten.
    """
    source = load_source(checkpoint, encoder_options)
    labels = patches.labels.copy()
    # Background that the labels leave out is none: what shows a class is labelled with it.
    labels[:, len(source.palette) :] = np.nan_to_num(labels[:, len(source.palette) :])
    pure = np.flatnonzero(labels.sum(1) == 1)
    if not len(pure) or labels.shape[1] not in (len(source.palette), source.channels):
        raise DataError(
            f"{checkpoint}: of {len(patches)} patches with {patches.labels.shape[1]} classes, "
            f"{len(pure)} show one only; some must, and the model has {source.channels} classes"
        )
    logits, classes = read_cells(source, patches, pure, progress)
    pairs: Sequence[tuple[float, float]] = fit_calibration(logits, classes).tolist()
    return with_calibration(checkpoint, pairs, out, overwrite=overwrite)


def read_cells(
    source: CamSource,
    patches: PatchSource,
    which: Sequence[int] | np.ndarray,
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """Read CAM logits ``(M, C)`` and classes ``(M,)`` of up to 49 cells of each patch in `which`.

    Each of these patches must show one class only.
    """
    classes = torch.from_numpy((patches.labels[which] == 1).argmax(1))
    parts = []
    for start in range(0, len(which), _BATCH):
        pixels = patches.read([int(number) for number in which[start : start + _BATCH]])
        batch = to_images(pixels, source.device)
        with torch.inference_mode():
            cams = source.cams(batch).float()
        side = min(_CELLS, cams.shape[2])
        parts.append(F.adaptive_avg_pool2d(cams, side).flatten(2).mT.cpu())
        if progress is not None:
            progress("calibrate", min(start + _BATCH, len(which)), len(which))
    logits = torch.cat(parts)
    return logits.flatten(0, 1), classes[:, None].expand(-1, logits.shape[1]).flatten()
