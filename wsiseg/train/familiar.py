"""Record what the training patches look like, so that a model can tell when a slide is unlike."""

from __future__ import annotations

import numpy as np
import torch

from wsiseg.model.construct import ConStruct
from wsiseg.model.familiar import fit_familiar
from wsiseg.train.features import read_images
from wsiseg.train.patches import PatchSource

__all__ = ["remember_patches"]

_MIN_PATCHES = 200
"""Of fewer patches, nearly everything else looks unlike them, even tiles of their own slides."""
_MAX_PATCHES = 512


@torch.no_grad()
def remember_patches(model: ConStruct, patches: PatchSource, device: torch.device) -> None:
    """Fit the model's `familiar` to some 500 evenly chosen patches, without augmentation.

    Does nothing with fewer than 200.
    """
    if len(patches) < _MIN_PATCHES:
        return
    chosen = np.unique(np.linspace(0, len(patches) - 1, min(_MAX_PATCHES, len(patches))).round())
    images = read_images(patches, chosen.astype(int), device)
    embedded = [model.encoder.embed_image(batch) for batch in images]
    model.familiar = fit_familiar(torch.cat(embedded).float())
    model.to(device)
