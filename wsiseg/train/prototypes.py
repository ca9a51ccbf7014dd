"""Prototypes that begin as images: clusters of what the encoder sees in labelled patches.

As the image bank of PBIP (Tang et al. 2025), but in the encoder's own space of embeddings.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsiseg.config import TrainConfig
from wsiseg.errors import DataError
from wsiseg.model.construct import SPREAD, ConStruct
from wsiseg.model.device import to_images
from wsiseg.train.parallel import Group
from wsiseg.train.patches import PatchSource
from wsiseg.train.setup import prototype_kind

__all__ = ["begin_as_images", "cluster", "image_prototypes"]

_MOST = 256
"""Patches of a class that are looked at, at most."""
_PURE = 8
"""Patches that show one class alone are enough from so many on, and from k."""
_BATCH, _RESTARTS, _ROUNDS = 16, 8, 50
_ALIKE = 1e-4
"""Length of a difference between unit vectors that says nothing."""


def begin_as_images(
    model: ConStruct, patches: PatchSource, config: TrainConfig, group: Group | None = None
) -> None:
    """Give the untrained `model` the prototypes that begin as images, if the settings say so.

    With `both`, a class's first k rows stay texts, and its last k become images. Where several
    processes train, all begin as the first of `group` does, however their devices round.

    Raises
    ------
    DataError
        If no patch shows a class.
    """
    kind = prototype_kind(config)
    if kind not in ("images", "both"):
        return
    count = config.prototypes_per_class
    bank = model.prototypes.detach().view(model.classes, -1, model.prototypes.shape[1])
    seen = []
    for at, name in enumerate(config.classes):
        if not (patches.labels[:, at] == 1).any():
            raise DataError(
                f"no patch shows {name!r}, so that it cannot begin as what its patches look like; "
                f"label some, or set prototypes to text or random"
            )
        seen.append(image_prototypes(model, patches, at, count, config.seed))
    bank[:, -count:] = _part(torch.stack(seen)).to(bank)
    if group is not None:
        rows = model.prototypes.detach()
        rows.copy_(group.gather(rows)[: len(rows)])


def _part(prototypes: Tensor) -> Tensor:
    """``(K, k, E)`` prototypes without what all classes have in common, of unit length.

    Whatever tissue it is, patches look much alike to most encoders: prototypes as they are start
    nearly parallel, and training is long in telling them apart. What is the mean stays as it is.
    """
    own = prototypes - prototypes.mean((0, 1))
    return torch.where(own.norm(dim=2, keepdim=True) > _ALIKE, F.normalize(own, dim=2), prototypes)


def image_prototypes(
    model: ConStruct, patches: PatchSource, at: int, count: int, seed: int
) -> Tensor:
    """``(count, E)`` on the CPU: unit means of `count` clusters of patches that show class `at`.

    Patches that show no other class go first, as a mixed one says less of any; all that show it
    where these are too few.
    """
    shown = patches.labels[:, at] == 1
    pure = shown & ((patches.labels == 1).sum(1) == 1)
    which = np.flatnonzero(pure if pure.sum() >= max(_PURE, count) else shown)
    which = which[np.unique(np.linspace(0, len(which) - 1, _MOST).round().astype(int))]
    return cluster(_embed(model, patches, which), count, seed)


@torch.no_grad()
def _embed(model: ConStruct, patches: PatchSource, which: np.ndarray) -> Tensor:
    device = model.prototypes.device
    parts = np.array_split(which, -(-len(which) // _BATCH))
    seen = [model.encoder.embed_image(to_images(patches.read(p.tolist()), device)) for p in parts]
    return torch.cat(seen).float().cpu()


def cluster(points: Tensor, count: int, seed: int) -> Tensor:
    """``(count, E)`` unit centres of ``(N, E)`` points on the sphere, in a fixed order.

    Spherical k-means (Dhillon and Modha 2001) from several k-means++ starts, the tightest kept.
    With fewer distinct points than centres, the others begin near the mean.
    """
    points = F.normalize(points.double(), dim=1)
    distinct = torch.unique(points, dim=0)
    random = torch.Generator().manual_seed(seed)
    if len(distinct) < count:
        mean = F.normalize(points.mean(0), dim=0)
        noise = torch.randn(count - len(distinct), len(mean), generator=random, dtype=mean.dtype)
        near = mean + SPREAD * F.normalize(noise, dim=1)
        return torch.cat([distinct, near]).float()
    tries = [_settle(points, _scatter(points, count, random)) for _ in range(_RESTARTS)]
    centres = max(tries, key=lambda found: float((points @ found.T).amax(1).sum()))
    sizes = torch.bincount((points @ centres.T).argmax(1), minlength=count)
    return centres[sizes.argsort(descending=True, stable=True)].float()


def _scatter(points: Tensor, count: int, random: torch.Generator) -> Tensor:
    """k-means++ (Arthur and Vassilvitskii 2007): each next centre far from those before."""
    chosen = [int(torch.randint(len(points), (1,), generator=random))]
    while len(chosen) < count:
        away = (1 - (points @ points[chosen].T).amax(1)).clamp_min(0)
        away[chosen] = 0
        if away.sum() <= 0:
            away = torch.ones_like(away)
        chosen.append(int(torch.multinomial(away, 1, generator=random)))
    return points[chosen]


def _settle(points: Tensor, centres: Tensor) -> Tensor:
    """Lloyd's rounds until nothing moves; a centre without points stays."""
    for _ in range(_ROUNDS):
        nearest = F.one_hot((points @ centres.T).argmax(1), len(centres)).to(points)
        sums = nearest.T @ points
        moved = torch.where(nearest.any(0)[:, None], F.normalize(sums, dim=1), centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres
