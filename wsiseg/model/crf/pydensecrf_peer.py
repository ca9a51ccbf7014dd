"""The usual library, pydensecrf, with the same settings: a cross-check, one image at a time."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from pydensecrf import densecrf

from wsiseg.config import CrfConfig
from wsiseg.model.crf.window import MIN_PROBABILITY

__all__ = ["refine_batch"]


def refine_batch(
    probabilities: torch.Tensor, image: torch.Tensor, config: CrfConfig
) -> torch.Tensor:
    """Mean field by pydensecrf; see `wsiseg.model.crf.refine` for the arguments."""
    prior = probabilities.cpu().numpy()
    pixels = image.permute(0, 2, 3, 1).cpu().numpy()
    out = np.stack([_refine_image(p, i, config) for p, i in zip(prior, pixels, strict=True)])
    return torch.from_numpy(out).to(probabilities.device)


def _refine_image(
    prior: NDArray[np.float32], image: NDArray[np.uint8], config: CrfConfig
) -> NDArray[np.float32]:
    """`(C, H, W)` and `(H, W, 3)` to `(C, H, W)`."""
    classes, height, width = prior.shape
    unary = -np.log(np.clip(prior, MIN_PROBABILITY, 1.0)).reshape(classes, -1)
    crf = densecrf.DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(np.array(unary, np.float32, order="C"))
    crf.addPairwiseGaussian(sxy=config.smooth_sxy, compat=config.smooth_weight)
    crf.addPairwiseBilateral(
        sxy=config.appearance_sxy,
        srgb=config.appearance_srgb,
        rgbim=np.array(image, order="C"),  # a copy: it refuses read-only arrays
        compat=config.appearance_weight,
    )
    q = np.asarray(crf.inference(config.iterations), np.float32)
    return q.reshape(classes, height, width)
