"""Teach `SmallNetwork` from tile labels: which classes show, by how much of the tile they fill."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsiseg.model.encoders.small_network import CHANNELS, SmallNetwork
from wsiseg.train.encoder.pictures import LabelledTiles, Part, Sampler

__all__ = ["CellHead", "FitSettings", "fit_network"]


@dataclass(frozen=True)
class FitSettings:
    """How long and how fast."""

    steps: int = 4000
    batch: int = 8
    """Pictures a step."""
    rate: float = 2e-3
    decay: float = 0.05
    smoothing: float = 0.01
    main: float = 0.3
    seed: int = 1


class CellHead(nn.Module):
    """Class logits of every cell; a tile's are the logarithm of their mean exponential.

    So a class shows if enough cells say so, by however much the others deny it, and what is learned
    from whole tiles is where in the tile it is.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.cells = nn.Conv2d(channels, classes, 1)

    def forward(self, maps: Tensor, parts: list[Part]) -> Tensor:
        """``(B, C, h, w)`` to ``(P, K)`` logits of the parts."""
        powers = self.cells(maps).exp()
        means = [powers[p.picture, :, p.rows, p.columns].mean((1, 2)) for p in parts]
        return torch.log(torch.stack(means))


def fit_network(
    tiles: LabelledTiles,
    settings: FitSettings,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[SmallNetwork, CellHead]:
    """The network and its head, the running mean of their weights, in evaluation mode."""
    torch.manual_seed(settings.seed)
    network = SmallNetwork(folded=False)
    head = CellHead(CHANNELS[2], tiles.labels.shape[1])
    both = nn.ModuleList([network, head])
    mean = copy.deepcopy(both)
    sampler = Sampler(tiles, settings.seed)
    decayed = [p for p in both.parameters() if p.ndim > 1]
    plain = [p for p in both.parameters() if p.ndim <= 1]
    groups = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=settings.rate, weight_decay=settings.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.rate, total_steps=settings.steps, pct_start=0.1
    )
    both.train()
    for step in range(settings.steps):
        pictures = sampler.draw(settings.batch)
        maps = network.look(pictures.images)[2]
        wanted = pictures.labels * (1 - 2 * settings.smoothing) + settings.smoothing
        logits = head(maps, pictures.parts)
        loss = F.binary_cross_entropy_with_logits(logits, wanted)
        loss = loss + settings.main * F.cross_entropy(logits, pictures.main)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(both.parameters(), 2.0)
        optimizer.step()
        schedule.step()
        _follow(mean, both, min(0.995, (step + 1) / (step + 10)))
        if progress is not None:
            progress(step + 1, loss.item())
    mean.eval()
    network, head = mean[0], mean[1]
    assert isinstance(network, SmallNetwork)
    assert isinstance(head, CellHead)
    return network, head


@torch.no_grad()
def _follow(mean: nn.Module, model: nn.Module, keep: float) -> None:
    for kept, new in zip(mean.state_dict().values(), model.state_dict().values(), strict=True):
        if kept.dtype.is_floating_point:
            kept.lerp_(new, 1 - keep)
        else:
            kept.copy_(new)
