"""Which classes an image shows: the mean over the cells that say so most."""

from __future__ import annotations

import torch
from torch import Tensor

from wsiseg.model.cam import known_shares

__all__ = ["SHOWN", "pool_evidence", "pool_shares"]

SHOWN = 0.05
"""An image shows a class that covers this share of it: as `class_fraction`."""
_EVIDENCE = 0.2
"""Share of the cells whose evidence is pooled. A mean over all of them finds less of a class that
covers little, and over a twentieth more of what is not there."""
_EPSILON = 1e-4  # probabilities are kept this far from 0 and 1, so that logits are finite


def pool_evidence(evidence: Tensor, known: Tensor | None = None) -> Tensor:
    """``(B, channels)`` logits of showing each class, from evidence ``(B, channels, h, w)``.

    With `known` ``(B, c, c)`` bool, only these cells count.
    """
    return _top_mean(evidence.float(), _EVIDENCE, known)


def pool_shares(cams: Tensor, known: Tensor | None = None) -> Tensor:
    """``(B, channels)``: logit of each class's probability where it is most likely.

    That is the mean over a twentieth of the (known) cells, those of the highest probability.
    """
    return torch.logit(_top_mean(cams.float().softmax(1), SHOWN, known), _EPSILON)


def _top_mean(values: Tensor, share: float, known: Tensor | None) -> Tensor:
    """Mean of the highest `share` of the (known) cells, at least of one: ``(B, channels)``."""
    cells = values.flatten(2)
    counts = cells.new_full((len(cells),), cells.shape[2])
    if known is not None:
        parts = known_shares(known, values.shape[2:])
        used = parts >= 0.5
        # If no cell is known for the most part, use those that are known in part.
        used = torch.where(used.any(2, keepdim=True), used, parts > 0)
        cells = torch.where(used, cells, cells.amin() - 1)
        counts = used.sum((1, 2)).to(cells.dtype)
    top = (share * counts).ceil().clamp_min(1).long()
    sums = cells.topk(int(top.max()), 2).values.cumsum(2)
    index = (top - 1)[:, None, None].expand(-1, cells.shape[1], 1)
    return sums.gather(2, index)[..., 0] / top[:, None]
