"""Choose the best epoch of the second stage on held-out windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from wsiseg.annotations import BACKGROUND
from wsiseg.distill.labels import LabelledWindows, Read
from wsiseg.errors import DataError
from wsiseg.evaluate import confusion_matrix, score
from wsiseg.model.cam import share_maps
from wsiseg.model.device import to_images
from wsiseg.model.source import CamSource

__all__ = ["Agreement"]

_BATCH = 8


@dataclass(frozen=True)
class Agreement:
    """Held-out windows with the first stage's labels; implements `Validate`."""

    measure: ClassVar[str] = "mean IoU with the first stage on the held-out windows"
    windows: LabelledWindows
    least: tuple[int, ...]
    """The lowest confidence at which a pixel of each label counts."""

    @property
    def identity(self) -> str:
        """The identity of the windows."""
        return self.windows.identity

    def check(self, source: CamSource) -> None:
        """Refuse windows of a size that the network does not accept."""
        if not source.sides.fits(self.windows.side):
            raise DataError(
                f"the held-out windows are {self.windows.side} px a side; {source.name} accepts "
                f"{source.sides}"
            )

    def __call__(self, source: CamSource) -> float:
        """Return the mean IoU, in [0, 1]."""
        classes = len(self.windows.palette)
        total = np.zeros((classes + 1, classes + 1), np.int64)
        for start in range(0, len(self.windows), _BATCH):
            numbers = range(start, min(start + _BATCH, len(self.windows)))
            total += self._compare(source, self.windows.reader(numbers), classes)
        return score(total).miou

    def _compare(self, source: CamSource, read: Read, classes: int) -> np.ndarray:
        with torch.inference_mode():
            cams = source.cams(to_images(read.images, source.device))
            shares = share_maps(cams, read.labels.shape[1:], source.calibration)
            predicted = shares.argmax(1).cpu().numpy()
        least = np.array(self.least, np.uint8)[np.minimum(read.labels, classes)]
        used = (read.labels <= classes) & (read.confidence >= least)
        return confusion_matrix(
            _to_labels(read.labels[used], classes), _to_labels(predicted[used], classes), classes
        )


def _to_labels(channels: np.ndarray, classes: int) -> np.ndarray:
    return np.where(channels >= classes, BACKGROUND, channels).astype(np.uint8)
