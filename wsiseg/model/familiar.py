"""Whether an image looks like the training patches, by the distance of its embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Familiar", "fit_familiar"]

_AXES = 32
_SHARE = 0.99
"""Share of the training patches that are nearer than distance 1."""
_EPSILON = 1e-6


class Familiar(nn.Module):
    """Distances of embeddings from those of a training set, whose edge is at 1.

    The set is modelled as a Gaussian with a few principal axes and an isotropic rest
    (probabilistic PCA, Tipping and Bishop 1999); the distance is Mahalanobis's.
    """

    mean: Tensor
    axes: Tensor
    rest: Tensor

    def __init__(self, axes: int, length: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(length))
        self.register_buffer("axes", torch.zeros(axes, length))
        self.register_buffer("rest", torch.ones(()))

    def forward(self, embeddings: Tensor) -> Tensor:
        """``(B, E)`` to ``(B,)`` distances; above 1 is farther than 99 % of the training set."""
        offsets = embeddings.float() - self.mean
        lengths = self.axes.square().sum(1)
        along = offsets @ self.axes.T
        # `axes` are unit vectors divided by their spreads: `lengths` takes the spread out again.
        outside = (offsets.square().sum(1) - (along.square() / lengths).sum(1)).clamp_min(0)
        return (along.square().sum(1) + outside * self.rest.square()).sqrt()


@torch.no_grad()
def fit_familiar(embeddings: Tensor) -> Familiar | None:
    """Fit the distribution of ``(N, E)`` embeddings; None if there are fewer than two."""
    count, length = embeddings.shape
    if count < 2:
        return None
    values = embeddings.double().cpu()
    mean = values.mean(0)
    _, spreads, directions = torch.linalg.svd(values - mean, full_matrices=False)
    variances = spreads.square() / (count - 1)
    axes = min(_AXES, count - 1, length - 1)
    rest = (variances[axes:].sum() / (length - axes)).clamp_min(_EPSILON)
    familiar = Familiar(axes, length)
    familiar.mean.copy_(mean)
    familiar.axes.copy_(directions[:axes] / variances[:axes].clamp_min(rest).sqrt()[:, None])
    familiar.rest.copy_(rest.rsqrt())
    edge = torch.quantile(familiar(embeddings), _SHARE).clamp_min(_EPSILON)
    familiar.axes.div_(edge)
    familiar.rest.div_(edge)
    return familiar
