"""A model's confidence at every pixel of masked patches, and whether it is right."""

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
    """Measure confidence as on a slide, before gates and CRF, against ``(B, H, W)`` uint8 labels.

    It is the softmax over a pixel's channels, calibrated if the source has a calibration; the label
    is the most probable class. Pixels without a true class are left out.
    """
    classes = len(source.palette)
    batch = to_images(images, source.device)
    with torch.inference_mode():
        cams = source.cams(batch).float()
        if source.calibration:
            scale, offset = cams.new_tensor(source.calibration).T[:, :, None, None]
            cams = cams * scale + offset
        logits = F.interpolate(cams, truth.shape[1:], mode="bilinear", align_corners=False)
        confidence, label = logits.softmax(1)[:, :classes].max(1)
    labelled = truth != BACKGROUND
    right = label.cpu().numpy() == truth
    return measure_reliability(confidence.cpu().numpy()[labelled], right[labelled])
