"""Train a `JoinedNetwork` to tell which classes are in tiles, and thereby where in them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsiseg.config import Precision
from wsiseg.model.device import autocast
from wsiseg.model.encoders.half_network import JoinedNetwork
from wsiseg.train.encoder.muon import Muon
from wsiseg.train.encoder.pictures import LabelledTiles, Part, Sampler

__all__ = ["CellHead", "FitSettings", "fit_network", "follow"]

_Network = TypeVar("_Network", bound=JoinedNetwork)


@dataclass(frozen=True)
class FitSettings:
    """Settings of the training; the defaults are those of the shipped encoder `small`."""

    steps: int = 6_500
    """About an hour on one core of a server."""
    batch: int = 8
    """Pictures per step, of four or nine tiles each."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """Of the convolutions: Muon takes fewer steps from nothing, AdamW keeps what was learned."""
    rate: float = 0.01
    """Its peak learning rate: it rises over a tenth of the steps, then falls to zero."""
    plain_rate: float = 3e-3
    """AdamW's, for biases, norms and the head."""
    decay: float = 0.05
    """Weight decay of the convolutions."""
    smoothing: float = 0.01
    """Label smoothing: distance of the targets from 0 and 1."""
    seed: int = 1
    """Seed of the weights, the pictures and their augmentation."""
    device: str = "cpu"
    """On a CPU, one thread gives the same bits each time."""
    precision: Precision = "float32"
    """Of the convolutions: ``bfloat16`` takes a third less time where the processor has it."""


class CellHead(nn.Module):
    """Class logits of every cell; a tile's logits are the log of the mean exponential of these.

    So a class is present if enough cells say so, however strongly the others deny it, and labels
    of whole tiles teach where in the tile it is.
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
    begin: Callable[[], _Network],
    tiles: LabelledTiles,
    settings: FitSettings,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[_Network, CellHead]:
    """Train a network and its head; return the running means of their weights, in evaluation mode.

    Parameters
    ----------
    begin
        Makes what to begin with, not folded; parameters that want no gradient stay as they are.
    tiles
        The training data; they stay in memory.
    progress
        Called with the number of steps done and the last loss.
    """
    torch.manual_seed(settings.seed)
    network = begin()
    head = CellHead(network.channels[2], tiles.labels.shape[1])
    both = nn.ModuleList([network, head]).to(settings.device)
    mean = copy.deepcopy(both)
    sampler = Sampler(tiles, settings.seed)
    optimizers = _optimizers(network, head, settings)
    schedules = [
        torch.optim.lr_scheduler.OneCycleLR(
            optimizer, optimizer.param_groups[0]["lr"], total_steps=settings.steps, pct_start=0.1,
            cycle_momentum=False,
        )
        for optimizer in optimizers
    ]  # fmt: skip
    both.train()
    for step in range(settings.steps):
        pictures = sampler.draw(settings.batch)
        with autocast(torch.device(settings.device), settings.precision):
            maps = network.look(pictures.images.to(settings.device))[2]
        targets = pictures.labels * (1 - 2 * settings.smoothing) + settings.smoothing
        logits = head(maps.float(), pictures.parts)
        loss = F.binary_cross_entropy_with_logits(logits, targets.to(settings.device))
        both.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        nn.utils.clip_grad_norm_(both.parameters(), 2.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        follow(mean, both, min(0.995, (step + 1) / (step + 10)))
        if progress is not None:
            progress(step + 1, loss.item())
    mean.eval()
    return cast(_Network, mean[0]), cast(CellHead, mean[1])


def _optimizers(
    network: nn.Module, head: nn.Module, settings: FitSettings
) -> list[torch.optim.Optimizer]:
    """One for the network's convolutions, and AdamW for the rest."""
    learned = [p for p in network.parameters() if p.requires_grad]
    weights = [p for p in learned if p.ndim > 1]
    plain = [p for p in learned if p.ndim <= 1] + list(head.parameters())
    make = {"muon": Muon, "adamw": torch.optim.AdamW}[settings.optimizer]
    return [
        make(weights, settings.rate, weight_decay=settings.decay),
        torch.optim.AdamW(plain, settings.plain_rate, weight_decay=0.0),
    ]


@torch.no_grad()
def follow(mean: nn.Module, model: nn.Module, keep: float) -> None:
    """Move the running mean of a model's weights towards it."""
    for value, new in zip(mean.state_dict().values(), model.state_dict().values(), strict=True):
        if value.dtype.is_floating_point:
            value.lerp_(new, 1 - keep)
        else:
            value.copy_(new)
