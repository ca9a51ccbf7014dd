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
    probabilities: torch.Tensor,
    image: torch.Tensor,
    config: CrfConfig,
    corner: tuple[int, int] = (0, 0),
) -> torch.Tensor:
    """Mean field by pydensecrf; see `wsiseg.model.crf.refine` for the arguments."""
    prior = probabilities.cpu().numpy()
    pixels = image.permute(0, 2, 3, 1).cpu().numpy()
    pairs = zip(prior, pixels, strict=True)
    out = np.stack([_refine_image(p, i, config, corner) for p, i in pairs])
    return torch.from_numpy(out).to(probabilities.device)


def _refine_image(
    prior: NDArray[np.float32],
    image: NDArray[np.uint8],
    config: CrfConfig,
    corner: tuple[int, int],
) -> NDArray[np.float32]:
    """`(C, H, W)` and `(H, W, 3)` to `(C, H, W)`."""
    classes, height, width = prior.shape
    unary = -np.log(np.clip(prior, MIN_PROBABILITY, 1.0)).reshape(classes, -1)
    crf = densecrf.DenseCRF(height * width, classes)
    crf.setUnaryEnergy(np.array(unary, np.float32, order="C"))
    # What its own addPairwiseGaussian and addPairwiseBilateral make of pixels, with one difference:
    # places count from the raster's corner, so that all crops lie on one lattice.
    y, x = np.indices((height, width), np.float32).reshape(2, -1)
    place = np.stack([x + corner[0], y + corner[1]]).astype(np.float32)
    colour = image.reshape(-1, 3).T.astype(np.float32) / np.float32(config.appearance_srgb)
    crf.addPairwiseEnergy(place / np.float32(config.smooth_sxy), compat=config.smooth_weight)
    crf.addPairwiseEnergy(
        np.concatenate([place / np.float32(config.appearance_sxy), colour]),
        compat=config.appearance_weight,
    )
    q = np.asarray(crf.inference(config.iterations), np.float32)
    return q.reshape(classes, height, width)
