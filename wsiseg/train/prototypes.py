"""Prototypes that start from images: clusters of the embeddings of labelled patches.

Like the image bank of PBIP (Tang et al. 2025), but in the encoder's own embedding space.
"""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsiseg.config import TrainConfig
from wsiseg.errors import DataError
from wsiseg.model.construct import SPREAD, ConStruct
from wsiseg.train.features import read_images
from wsiseg.train.parallel import Group
from wsiseg.train.patches import PatchSource
from wsiseg.train.setup import prototype_kind

__all__ = ["begin_as_images", "cluster", "image_prototypes"]

_MAX_PATCHES = 256
"""Most patches of a class that are embedded."""
_PURE = 8
"""Patches of one class alone suffice if there are at least so many, and at least k."""
_RESTARTS, _ROUNDS = 8, 50
_ALIKE = 1e-4
"""Differences of unit vectors that are shorter than this are rounding."""


def begin_as_images(
    model: ConStruct,
    patches: PatchSource,
    config: TrainConfig,
    group: Group | None = None,
    *,
    unseen: Container[int] = (),
) -> None:
    """Initialise the prototypes of an untrained `model` from images, if the settings say so.

    With `both`, a class's first k rows stay texts, and its last k become images. If several
    processes train, all start from those of the first, however their devices round. Classes of the
    numbers `unseen` keep the rows that they have.

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
    rows: dict[int, Tensor] = {}
    for at, name in enumerate(config.classes):
        if at in unseen:
            continue
        if not (patches.labels[:, at] == 1).any():
            raise DataError(
                f"no patch shows {name!r}, so its prototypes cannot start from images; label some "
                f"patches with it, or set prototypes to text or random"
            )
        rows[at] = image_prototypes(model, patches, at, count, config.seed)
    if rows:
        bank[list(rows), -count:] = _subtract_mean(torch.stack(list(rows.values()))).to(bank)
    if group is not None:
        own = model.prototypes.detach()
        own.copy_(group.gather(own)[: len(own)])


def _subtract_mean(prototypes: Tensor) -> Tensor:
    """Subtract from ``(K, k, E)`` prototypes what all classes have in common; unit length again.

    Patches look much alike to most encoders, whatever the tissue: without this, prototypes start
    nearly parallel, and training takes long to separate them. One that is the mean is not changed.
    """
    own = prototypes - prototypes.mean((0, 1))
    return torch.where(own.norm(dim=2, keepdim=True) > _ALIKE, F.normalize(own, dim=2), prototypes)


def image_prototypes(
    model: ConStruct, patches: PatchSource, at: int, count: int, seed: int
) -> Tensor:
    """``(count, E)`` on the CPU: unit means of `count` clusters of patches that show class `at`.

    Patches that show no other class are preferred, as a mixed one says less about any; if these
    are too few, all patches that show it are used.
    """
    shown = patches.labels[:, at] == 1
    pure = shown & ((patches.labels == 1).sum(1) == 1)
    which = np.flatnonzero(pure if pure.sum() >= max(_PURE, count) else shown)
    which = which[np.unique(np.linspace(0, len(which) - 1, _MAX_PATCHES).round().astype(int))]
    return cluster(_embed(model, patches, which), count, seed)


@torch.no_grad()
def _embed(model: ConStruct, patches: PatchSource, which: np.ndarray) -> Tensor:
    device = model.prototypes.device
    rows = [model.encoder.embed_image(batch) for batch in read_images(patches, which, device)]
    return torch.cat(rows).float().cpu()


def cluster(points: Tensor, count: int, seed: int) -> Tensor:
    """Return ``(count, E)`` unit centres of ``(N, E)`` points on the sphere, in a fixed order.

    Spherical k-means (Dhillon and Modha 2001), the tightest of several k-means++ starts.
    With fewer distinct points than centres, the others are placed near the mean.
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
    centres = max(tries, key=lambda result: float((points @ result.T).amax(1).sum()))
    sizes = torch.bincount((points @ centres.T).argmax(1), minlength=count)
    return centres[sizes.argsort(descending=True, stable=True)].float()


def _scatter(points: Tensor, count: int, random: torch.Generator) -> Tensor:
    """k-means++ (Arthur and Vassilvitskii 2007): draw each centre far from those before."""
    chosen = [int(torch.randint(len(points), (1,), generator=random))]
    while len(chosen) < count:
        away = (1 - (points @ points[chosen].T).amax(1)).clamp_min(0)
        away[chosen] = 0
        if away.sum() <= 0:
            away = torch.ones_like(away)
        chosen.append(int(torch.multinomial(away, 1, generator=random)))
    return points[chosen]


def _settle(points: Tensor, centres: Tensor) -> Tensor:
    """Lloyd's iterations until nothing moves; a centre without points stays."""
    for _ in range(_ROUNDS):
        nearest = F.one_hot((points @ centres.T).argmax(1), len(centres)).to(points)
        sums = nearest.T @ points
        moved = torch.where(nearest.any(0)[:, None], F.normalize(sums, dim=1), centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres
