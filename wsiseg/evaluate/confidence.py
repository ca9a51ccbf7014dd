"""How sure a model is of every pixel of masked patches, and whether it is right."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from wsiseg.annotations import BACKGROUND
from wsiseg.evaluate.reliability import Reliability, measure_reliability
from wsiseg.model.device import to_images
from wsiseg.model.source import CamSource

__all__ = ["check_confidence"]


def check_confidence(
    source: CamSource, images: NDArray[np.uint8], truth: NDArray[np.uint8]
) -> Reliability:
    """Confidence as on a slide, before gates and CRF, against ``(B, H, W)`` uint8 labels.

    The softmax over a pixel's channels, calibrated where the source says how; the label is the most
    probable class. Pixels of no class are left out, as nobody says what they are.
    """
    classes = len(source.palette)
    batch = to_images(images, source.device)
    with torch.inference_mode():
        cams = source.cams(batch).float()
        if source.calibration:
            scale, offset = cams.new_tensor(source.calibration).T[:, :, None, None]
            cams = cams * scale + offset
        fields = F.interpolate(cams, truth.shape[1:], mode="bilinear", align_corners=False)
        sure, label = fields.softmax(1)[:, :classes].max(1)
    shown = truth != BACKGROUND
    right = label.cpu().numpy() == truth
    return measure_reliability(sure.cpu().numpy()[shown], right[shown])
