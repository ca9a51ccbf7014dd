"""Features of some training patches, by which later training can tell what a model would forget."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Exemplars"]


class Exemplars(nn.Module):
    """Frozen features of training patches, kept in the checkpoint; not the patches themselves.

    Parameters
    ----------
    shape
        Of the features.
    classes
        K, of the model.
    """

    features: Tensor
    """``(N, D, h, w)`` float16: the encoder's maps of the level that the CAM reads."""
    known: Tensor
    """``(K,)`` bool: the classes whose CAMs of them should last, as the model was taught those."""

    def __init__(self, shape: Sequence[int], classes: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(tuple(shape), dtype=torch.float16))
        self.register_buffer("known", torch.ones(classes, dtype=torch.bool))

    def __len__(self) -> int:
        return len(self.features)
