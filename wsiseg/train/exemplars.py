"""Keep features of training patches in a checkpoint, and hold on to them in later training.

A model that goes on from a checkpoint forgets what the new labels do not show. So its CAMs of the
checkpoint's exemplars are kept near those of before: dark experience replay (Buzzega et al. 2020),
with the encoder's features instead of images, as in REMIND (Hayes et al. 2020).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from wsiseg.model.construct import ConStruct
from wsiseg.model.exemplars import Exemplars
from wsiseg.train.features import read_images
from wsiseg.train.patches import PatchSource

__all__ = ["Recall", "choose_exemplars", "keep_exemplars"]

_CELLS = 7
"""Cells along the side of the part of a patch that is kept, at most: the central ones."""
_BATCH = 32


@torch.no_grad()
def keep_exemplars(
    model: ConStruct, patches: PatchSource, count: int, device: torch.device
) -> None:
    """Give `model` the features of up to `count` patches of each class."""
    (level,), chosen = model.cam_levels, choose_exemplars(patches.labels, count)
    images = read_images(patches, chosen, device)
    maps = [_centre(*model.encoder.pyramid(batch, [level])).half() for batch in images]
    features = torch.cat(maps)
    model.exemplars = Exemplars(features.shape, model.classes).to(device)
    model.exemplars.features.copy_(features)


def choose_exemplars(labels: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Choose up to `count` patches of each class by ``(N, K)`` labels, 1 if shown; in order.

    Those that show the fewest classes, and evenly among these, so that they come from many slides.
    """
    shown = labels == 1
    several, chosen = shown.sum(1), set[int]()
    for column in shown.T:
        own = np.flatnonzero(column)
        if len(own):
            most = np.sort(several[own])[:count][-1]
            alike = own[several[own] <= most]
            at = np.linspace(0, len(alike) - 1, min(count, len(alike))).round().astype(int)
            chosen |= set(alike[at].tolist())
    return np.array(sorted(chosen), np.intp)


def _centre(maps: Tensor) -> Tensor:
    top, left = (max(0, size - _CELLS) // 2 for size in maps.shape[2:])
    return maps[:, :, top : top + _CELLS, left : left + _CELLS]


class Recall:
    """The CAMs of a model's exemplars when its training begins.

    Parameters
    ----------
    model
        With exemplars; as it begins.
    seed
        Determines which exemplars a step compares.
    """

    def __init__(self, model: ConStruct, seed: int) -> None:
        self._seed, was_training = seed, model.training
        model.eval()
        with torch.no_grad():
            rows = torch.arange(len(_exemplars(model)), device=model.prototypes.device)
            self._before = torch.cat([_compute_cams(model, p) for p in torch.split(rows, _BATCH)])
        model.train(was_training)

    def loss(self, model: ConStruct, step: int) -> Tensor:
        """Return the mean squared difference of the CAMs of some exemplars, for a step's number."""
        count = len(self._before)
        drawn = np.random.default_rng([self._seed, step]).permutation(count)[:_BATCH]
        rows = torch.from_numpy(drawn).to(self._before.device)
        known = _exemplars(model).known
        now = _compute_cams(model, rows)
        return F.mse_loss(now[:, known], self._before[rows][:, known])


def _compute_cams(model: ConStruct, rows: Tensor) -> Tensor:
    """``(B, K, h, w)`` float32 CAMs of the exemplars `rows` ``(B,)``."""
    maps = _exemplars(model).features[rows].float()
    return model.read_pyramid({model.cam_levels[0]: maps}).cams.float()


def _exemplars(model: ConStruct) -> Exemplars:
    if model.exemplars is None:
        raise ValueError("the model has no exemplars")
    return model.exemplars
