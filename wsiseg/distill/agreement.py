"""What chooses the best epoch of the second stage: windows that it does not learn from."""

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
    """Windows held out, with the first stage's labels; keeps the promise `Validate`."""

    measure: ClassVar[str] = "mean IoU with the first stage on the windows held out"
    windows: LabelledWindows
    least: tuple[int, ...]
    """The least confidence by which a pixel of each label counts."""

    @property
    def identity(self) -> str:
        """That of the windows."""
        return self.windows.identity

    def check(self, source: CamSource) -> None:
        """Refuse windows of a side that the network does not take."""
        if not source.sides.fits(self.windows.side):
            raise DataError(
                f"the windows held out are {self.windows.side} px a side; {source.name} takes "
                f"{source.sides}"
            )

    def __call__(self, source: CamSource) -> float:
        """The mean IoU, in [0, 1]."""
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
            found = shares.argmax(1).cpu().numpy()
        least = np.array(self.least, np.uint8)[np.minimum(read.labels, classes)]
        used = (read.labels <= classes) & (read.confidence >= least)
        return confusion_matrix(
            _outside(read.labels[used], classes), _outside(found[used], classes), classes
        )


def _outside(labels: np.ndarray, classes: int) -> np.ndarray:
    return np.where(labels >= classes, BACKGROUND, labels).astype(np.uint8)
