"""The losses of ConStruct, as the paper defines them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import NamedTuple, ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "MemoryBank",
    "Regions",
    "background_loss",
    "contrast_loss",
    "cut_regions",
    "diversity_loss",
    "foreground_loss",
    "region_masks",
    "relational_loss",
    "split_anchors",
    "weigh_regions",
]

TEMPERATURE = 0.07

_P = ParamSpec("_P")


def _in_float32(loss: Callable[_P, Tensor]) -> Callable[_P, Tensor]:
    """Compute a loss in float32 or better, whatever the autocast around it.

    Half precision overflows in sums over tokens, and cancels in their differences.
    """

    @wraps(loss)
    def computed(*args: _P.args, **kwargs: _P.kwargs) -> Tensor:
        device = next(value.device for value in args if isinstance(value, Tensor))
        with torch.autocast(device.type, enabled=False):
            return loss(*map(_widen, args), **kwargs)  # type: ignore[arg-type]  # of the same kinds

    return computed


def _widen(value: object) -> object:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    return value.to(torch.promote_types(value.dtype, torch.float32))


@_in_float32
def relational_loss(student: Tensor, teacher: Tensor, max_side: int = 64) -> Tensor:
    """Mean squared difference of the two maps' token affinities (relational distillation).

    With unit rows S and T (one token per row, N tokens) it is ``||S S' - T T'||^2 / N^2``, the mean
    over the batch. Where N exceeds the channels, the same number is computed from the small
    matrices ``S'S``, ``S'T`` and ``T'T``: the N x N affinities are never computed.

    Parameters
    ----------
    student
        ``(B, C, h, w)`` float.
    teacher
        ``(B, D, h', w')`` float without gradient, resized to ``h x w`` (bilinear).
    max_side
        Maps larger than this are averaged down to ``max_side x max_side`` first.

    Returns
    -------
    A scalar.
    """
    size = student.shape[2:]
    if teacher.shape[2:] != size:
        teacher = F.interpolate(teacher, size, mode="bilinear", align_corners=False)
    if max(size) > max_side:
        student = F.adaptive_avg_pool2d(student, max_side)
        teacher = F.adaptive_avg_pool2d(teacher, max_side)
    s, t = _tokens(student), _tokens(teacher)
    count = s.shape[1]
    if count <= max(s.shape[2], t.shape[2]):
        return ((s @ s.mT - t @ t.mT) ** 2).mean()
    squares = [(a.mT @ b).square().sum((1, 2)) for a, b in ((s, s), (s, t), (t, t))]
    return ((squares[0] - 2 * squares[1] + squares[2]) / count**2).mean()


def _tokens(maps: Tensor) -> Tensor:
    """``(B, C, h, w)`` to L2-normalised tokens ``(B, N, C)``."""
    return F.normalize(maps.flatten(2), dim=1).mT


@_in_float32
def diversity_loss(cosines: Tensor, labels: Tensor) -> Tensor:
    """How similarly a class's prototypes respond within its region; minimised, it keeps them apart.

    The squared correlation of two prototypes' maps over the cells where their class wins among
    those present; the mean over pairs, then over an image's classes, then over the batch. After the
    diversity regulariser of LPD (Le et al. 2025); its published code also averages maps over
    windows of 7 cells and divides by the number of cells.

    Parameters
    ----------
    cosines
        ``(B, K, k, h, w)`` of `prototype_cosines`, k > 1.
    labels
        ``(B, K)``: non-zero where the class is present.

    Returns
    -------
    A scalar in [0, 1]; an image whose classes win fewer than three cells counts as 0.
    """
    maps, present = cosines.flatten(3), labels[:, :, None] != 0
    best = maps.detach().amax(2).masked_fill(~present, -torch.inf)
    won = (present & (best == best.amax(1, keepdim=True)))[:, :, None].to(maps)
    cells = won.sum(3, keepdim=True)
    centred = (maps - (maps * won).sum(3, keepdim=True) / cells.clamp_min(1)) * won
    unit = F.normalize(centred, dim=3)
    similarity = (unit @ unit.mT).square()
    count = maps.shape[2]
    own = similarity.diagonal(dim1=2, dim2=3).sum(2)
    pairs = (similarity.sum((2, 3)) - own) / (count * (count - 1))
    # Over two cells, any two centred maps are the same or opposite.
    valid = (cells.flatten(1) > 2).to(pairs)
    return ((pairs * valid).sum(1) / valid.sum(1).clamp_min(1)).mean()


def region_masks(
    cams: Tensor, size: Sequence[int], *, per_class: bool = False
) -> tuple[Tensor, Tensor]:
    """Activation maps at image size, and where each reaches half of the strongest activation.

    The strongest is one per image, over all classes and pixels: a class that stays below half of
    it has an empty mask. With `per_class`, as the paper writes, it is each class's own. The masks
    carry no gradient.

    Returns
    -------
    Maps ``(B, K, H, W)`` float (the positive part of `cams`, bilinear, corners aligned) and masks
    of the same shape, bool.
    """
    maps = F.interpolate(F.relu(cams), tuple(size), mode="bilinear", align_corners=True)
    over = (2, 3) if per_class else (1, 2, 3)
    return maps, maps >= 0.5 * maps.amax(over, keepdim=True)


class Regions(NamedTuple):
    """One pair of images for every class present in every image; ``N`` pairs."""

    foreground: Tensor
    """``(N, 3, H, W)``: the class's region; the rest has the mean colour."""
    background: Tensor
    """``(N, 3, H, W)``: everything but that region, likewise."""
    labels: Tensor
    """``(N,)`` int64: the pair's class."""


def cut_regions(images: Tensor, masks: Tensor, labels: Tensor, mean: Sequence[float]) -> Regions:
    """Crop each present class's region and its complement.

    The pixels cut away get the encoder's `mean` colour, which its normalisation makes zero.

    Parameters
    ----------
    images
        ``(B, 3, H, W)`` float RGB in [0, 1].
    masks
        ``(B, K, H, W)`` bool of `region_masks`.
    labels
        ``(B, K)``: non-zero where the class is present.
    """
    rows, classes = torch.nonzero(labels, as_tuple=True)
    mask = masks[rows, classes][:, None]
    fill = images.new_tensor(mean)[:, None, None]
    chosen = images[rows]
    return Regions(torch.where(mask, chosen, fill), torch.where(mask, fill, chosen), classes)


def weigh_regions(images: Tensor, maps: Tensor, masks: Tensor, labels: Tensor) -> Regions:
    """Weight the regions by the activation M: M in the foreground, 1 - M in the background.

    Gradients reach the `maps`, which `cut_regions` does not allow. M is used as it is: above 1 it
    inverts the background's colours, as in the released code.

    Parameters
    ----------
    images
        ``(B, 3, H, W)`` float in the statistics of the encoder, so that 0 is the mean colour.
    maps, masks
        ``(B, K, H, W)`` of `region_masks`.
    labels
        ``(B, K)``: non-zero where the class is present.
    """
    rows, classes = torch.nonzero(labels, as_tuple=True)
    weight, mask = maps[rows, classes][:, None], masks[rows, classes][:, None].to(maps.dtype)
    chosen = images[rows]
    return Regions(weight * chosen * mask, (1 - weight) * chosen * (1 - mask), classes)


@_in_float32
def foreground_loss(region: Tensor, own: Tensor, others: Tensor, queue: Tensor) -> Tensor:
    """InfoNCE that pulls a region to its class (van den Oord et al. 2018).

    Cross entropy of target 0 over the cosines with `own` ``(N, E)``, `others` ``(N, K - 1, E)``
    and the memory bank's `queue` ``(Q, E)``, divided by 0.07.
    """
    cosines = _cosines(region, own, others)
    cosines = torch.cat([cosines, F.normalize(region, dim=1) @ F.normalize(queue, dim=1).T], 1)
    return -F.log_softmax(cosines / TEMPERATURE, 1)[:, 0].mean()


@_in_float32
def background_loss(region: Tensor, own: Tensor, others: Tensor) -> Tensor:
    """The counterpart of `foreground_loss`: pushes a class's background away from the class.

    ``logsumexp(own and others) - logsumexp(others)`` of the cosines over 0.07; shapes as in
    `foreground_loss`. Needs others: K > 1.
    """
    cosines = _cosines(region, own, others) / TEMPERATURE
    return (cosines.logsumexp(1) - cosines[:, 1:].logsumexp(1)).mean()


def _cosines(region: Tensor, own: Tensor, others: Tensor) -> Tensor:
    """``(N, K)``: cosines of each region with its own class, then with the others."""
    anchors = F.normalize(torch.cat([own[:, None], others], 1), dim=2)
    return torch.einsum("ne,nke->nk", F.normalize(region, dim=1), anchors)


class MemoryBank:
    """The last `size` background embeddings, first in first out; starts as unit noise."""

    def __init__(self, size: int, dim: int, generator: torch.Generator | None = None) -> None:
        self.queue = F.normalize(torch.randn(size, dim, generator=generator), dim=1)
        """``(size, dim)`` float32, L2-normalised rows."""
        self.pointer = 0

    def push(self, rows: Tensor) -> None:
        """Write `rows` ``(N, dim)``, L2-normalised, over the oldest."""
        rows, size = F.normalize(rows.detach().to(self.queue), dim=1), len(self.queue)
        if len(rows) >= size:
            self.queue, self.pointer = rows[-size:].clone(), 0
            return
        at = (self.pointer + torch.arange(len(rows), device=rows.device)) % size
        self.queue[at] = rows
        self.pointer = (self.pointer + len(rows)) % size


def contrast_loss(
    foreground: Tensor, background: Tensor, labels: Tensor, anchors: Tensor, bank: MemoryBank
) -> Tensor:
    """Foreground plus background loss of N region pairs; the bank takes in the backgrounds.

    Gradients reach the `anchors` and through them the prototypes, and the embeddings if they carry
    any; preset `reference` detaches its own before the call.

    Parameters
    ----------
    foreground, background
        ``(N, E)`` image embeddings of the regions, N > 0.
    labels
        ``(N,)`` int64: the class of each pair.
    anchors
        ``(K, E)``: the classes' mean prototypes.
    """
    own, others = split_anchors(anchors, labels)
    loss = foreground_loss(foreground, own, others, bank.queue)
    if len(anchors) > 1:  # a single class has no others
        loss = loss + background_loss(background, own, others)
    bank.push(background)
    return loss


def split_anchors(anchors: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Each label's own anchor ``(N, E)`` and the others' ``(N, K - 1, E)`` of ``(K, E)``."""
    classes = len(anchors)
    others = torch.arange(classes, device=labels.device).expand(len(labels), -1)
    others = others[others != labels[:, None]].view(len(labels), classes - 1)
    return anchors[labels], anchors[others]
