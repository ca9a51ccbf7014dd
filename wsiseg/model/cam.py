"""Class activation maps: cosine of features and prototypes, and their test-time augmentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["BRIGHTNESS", "augmented_cams", "cosine_cams"]

BRIGHTNESS = (0.9, 1.0, 1.1)
"""Factors of the paper's six-fold augmentation, each without and with a horizontal flip."""


def cosine_cams(features: Tensor, prototypes: Tensor, scale: Tensor, classes: int) -> Tensor:
    """Cosine of every cell with every class's nearest prototype, times `scale`.

    Parameters
    ----------
    features
        ``(B, D, h, w)`` float, any length.
    prototypes
        ``(K * k, D)`` float, L2-normalised; rows ``c * k .. c * k + k - 1`` belong to class c.
    scale
        The logit scale, a scalar.
    classes
        K.

    Returns
    -------
    ``(B, K, h, w)`` float.
    """
    cosine = torch.einsum("bdhw,pd->bphw", F.normalize(features, dim=1), prototypes)
    batch, _, height, width = cosine.shape
    return scale * cosine.view(batch, classes, -1, height, width).amax(2)


def augmented_cams(
    cams_of: Callable[[Tensor], Tensor], images: Tensor, mean: Sequence[float], augmentations: int
) -> Tensor:
    """Mean CAM logits over 1 (none) or the paper's 6 augmentations of `images`.

    A brightness factor multiplies the *normalised* image (construct.md section 7), which in
    [0, 1] is a change of contrast about the encoder's `mean`.

    Parameters
    ----------
    cams_of
        Gives CAMs ``(B, K, h, w)`` of images.
    images
        ``(B, 3, H, W)`` float RGB in [0, 1].
    """
    if augmentations == 1:
        return cams_of(images)
    centre = images.new_tensor(mean)[:, None, None]
    total: Tensor | None = None
    for flip in (False, True):
        for factor in BRIGHTNESS:
            changed = centre + factor * (images - centre)
            cams = cams_of(changed.flip(3)).flip(3) if flip else cams_of(changed)
            total = cams if total is None else total + cams
    assert total is not None
    return total / (2 * len(BRIGHTNESS))
