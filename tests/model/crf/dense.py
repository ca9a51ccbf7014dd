"""The dense CRF as the paper writes it: whole matrices in float64, so for small images only."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from wsiseg.config import CrfConfig

Array = NDArray[np.float64]


def normalized_kernel(features: Array) -> Array:
    """`(N, N)` Gaussian of `(N, F)` features in standard deviations, symmetrically normalised."""
    square = ((features[:, None] - features[None]) ** 2).sum(-1)
    kernel = np.exp(-0.5 * square)
    norm = 1 / np.sqrt(kernel.sum(1))
    return norm[:, None] * kernel * norm[None]


def refine_dense(
    probabilities: torch.Tensor, image: torch.Tensor, config: CrfConfig
) -> torch.Tensor:
    """`wsiseg.model.crf.refine` by its definition; `(1, C, H, W)` float64."""
    _, classes, height, width = probabilities.shape
    y, x = (part.reshape(-1) for part in np.mgrid[:height, :width].astype(float))
    colour = image[0].numpy().reshape(3, -1).astype(float)
    smoothness = normalized_kernel(np.stack([y, x], -1) / config.smooth_sxy)
    place = np.stack([y, x], -1) / config.appearance_sxy
    shade = colour.T / config.appearance_srgb
    appearance = normalized_kernel(np.concatenate([place, shade], -1))
    unary = np.log(np.clip(probabilities[0].double().numpy(), 1e-5, 1).reshape(classes, -1).T)
    q = softmax(unary)
    for _ in range(config.iterations):
        message = config.smooth_weight * (smoothness @ q)
        message += config.appearance_weight * (appearance @ q)
        q = softmax(unary + message)
    return torch.from_numpy(q.T.reshape(1, classes, height, width).copy())


def softmax(logits: Array) -> Array:
    """Over the last axis."""
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(raised / raised.sum(-1, keepdims=True))
