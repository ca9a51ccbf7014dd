"""Training steps of the second stage: targets, loss, AdamW, and the state to resume from.

Two things are learned: of which channel each cell is, and which classes a tile shows at all, by
which its map is gated. The latter's loss is the binary cross entropy of the pooled evidence.
"""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from wsiseg.config import DistillConfig
from wsiseg.distill.augment import Views
from wsiseg.distill.labels import LabelledWindows, choose_least
from wsiseg.distill.setup import view_side
from wsiseg.errors import TrainingError
from wsiseg.model.device import autocast
from wsiseg.model.segment import SegmentNetwork, SegmentOutput, find_network
from wsiseg.model.segment.presence import SHOWN, pool_evidence
from wsiseg.train.encoder.fit import follow

__all__ = ["Targets", "Teaching", "Trainer", "plan_teaching", "to_targets"]

_MAX_WEIGHT = 5.0
"""Highest weight of a rare class, as a few pixels do not represent a class."""
_WARMUP = 0.1  # share of the steps during which the rate rises
_CLIP = 2.0
_DECAY = 0.995  # of the running mean of weights


class Teaching(NamedTuple):
    """How the pixels of windows are used."""

    least: NDArray[np.uint8]
    """``(K + 1,)``: the lowest confidence at which a pixel of each label is used."""
    weights: NDArray[np.float32]
    """``(C,)`` weights of the network's channels: K, or K + 1 if background is learned."""
    parts: int
    """Tiles along the side of a window: which classes are shown is learned tile by tile."""
    soft: bool
    """Whether to learn the confidence itself: the target is the confidence for a pixel's label, and
    the rest is shared among the other channels, so that calibration is kept."""


class Targets(NamedTuple):
    """The targets of a batch, at the resolution of the logits."""

    shares: Tensor
    """``(B, C, h, w)`` float32: the weight of each channel as target."""
    total: Tensor
    """Scalar: their sum, before the weights of the channels; 0 if no pixel is used."""
    shown: Tensor
    """``(B * parts * parts, C)`` float32: 1 if the tile shows the channel, 0 if not, NaN if none of
    its pixels has a label."""


def plan_teaching(windows: LabelledWindows, config: DistillConfig) -> Teaching:
    """Plan how the pixels of windows are used, from the contents of all windows."""
    least = choose_least(windows, config)
    channels = len(windows.palette) + (config.background == "learn")
    used = np.arange(256) >= least[:, None]
    counts = (windows.survey.counts * used).sum(1)[:channels].astype(float)
    shown = counts > 0
    weights = np.ones(channels)
    if config.balance and shown.any():
        mean = counts[shown].mean()
        weights[shown] = np.minimum(np.sqrt(mean / counts[shown]), _MAX_WEIGHT)
    return Teaching(
        least, weights.astype(np.float32), _count_parts(windows, config), windows.calibrated
    )


def _count_parts(windows: LabelledWindows, config: DistillConfig) -> int:
    """Tiles along the side of a window; 1 if they do not fill it, or do not fit the network."""
    side, tile = view_side(windows, config), windows.tile
    fits = side % tile == 0 and tile % find_network(config.network).step == 0
    return side // tile if fits else 1


def to_targets(views: Views, teaching: Teaching, stride: int) -> Targets:
    """Average the targets of the pixels under each logit, weighted by confidence."""
    channels = len(teaching.weights)
    labels = torch.from_numpy(views.labels).long()
    confidence = torch.from_numpy(views.confidence).float() / 255
    known = labels < channels
    least = torch.from_numpy(teaching.least)[labels.clamp(max=len(teaching.least) - 1)]
    used = known & (torch.from_numpy(views.confidence) >= least)
    weight = confidence * used
    other = weight * (1 - confidence) / max(1, channels - 1) if teaching.soft else torch.zeros(())
    own = weight * confidence if teaching.soft else weight
    shares = torch.stack(
        [
            F.avg_pool2d(torch.where(labels == channel, own, other)[:, None], stride)[:, 0]
            for channel in range(channels)
        ],
        1,
    )
    return Targets(shares, shares.sum(), _to_shown(labels, teaching))


def _to_shown(labels: Tensor, teaching: Teaching) -> Tensor:
    """Which channels each tile of ``(B, H, W)`` labels shows, as in `Targets`."""
    side = labels.shape[1] // teaching.parts
    known = F.avg_pool2d((labels < len(teaching.least)).float()[:, None], side)
    covered = torch.cat(
        [
            F.avg_pool2d((labels == channel).float()[:, None], side)
            for channel in range(len(teaching.weights))
        ],
        1,
    )
    shown = torch.where(known > 0, (covered >= SHOWN * known).float(), torch.nan)
    return shown.movedim(1, 3).flatten(0, 2)


def _to_tiles(maps: Tensor, parts: int) -> Tensor:
    """Cut ``(B, C, h, w)`` maps of windows into those of their tiles, in the order of `shown`."""
    batch, channels, height, width = maps.shape
    cut = maps.reshape(batch, channels, parts, height // parts, parts, width // parts)
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


class Trainer:
    """A network in training, the running mean of its weights, optimiser and schedule.

    Parameters
    ----------
    network
        Trained in place; switched to training mode.
    steps
        Total number of steps, for the schedule.
    """

    def __init__(
        self, network: SegmentNetwork, teaching: Teaching, config: DistillConfig, steps: int
    ) -> None:
        self.network, self.teaching, self.config = network.train(), teaching, config
        self.mean = copy.deepcopy(network).eval().requires_grad_(False)
        self.steps, self.done = steps, 0
        self.device = next(network.parameters()).device
        self.weights = torch.from_numpy(teaching.weights).to(self.device)[:, None, None]
        self.optimizer = torch.optim.AdamW(list(_groups(network, config)), lr=config.learning_rate)

    @property
    def rate(self) -> float:
        """The next step's share of the learning rate: a linear rise, then half a cosine."""
        warmup = max(1, round(_WARMUP * self.steps))
        if self.done < warmup:
            return (self.done + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (self.done - warmup) / max(1, self.steps - warmup)))

    def step(self, views: Views) -> float:
        """Train on one batch and return the loss; 0 if no pixel is used.

        Raises
        ------
        TrainingError
            If the loss is not finite; the weights are unchanged.
        """
        targets = to_targets(views, self.teaching, self.network.stride)
        loss = self._loss(views.images.to(self.device), targets)
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(f"the loss is {value}")
        for group in self.optimizer.param_groups:
            group["lr"] = group["top"] * self.rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        nn.utils.clip_grad_norm_(self.network.parameters(), _CLIP)
        self.optimizer.step()
        self.done += 1
        follow(self.mean, self.network, min(_DECAY, self.done / (self.done + 9)))
        return value

    def _loss(self, images: Tensor, targets: Targets) -> Tensor:
        with autocast(self.device, self.config.precision):
            output: SegmentOutput = self.network(images)
        wanted = targets.shares.to(self.device) * self.weights
        total = targets.total.to(self.device).clamp_min(1e-6)
        cells: Tensor = -(wanted * output.logits.float().log_softmax(1)).sum() / total
        if output.evidence is None:
            return cells
        return cells + self._miss(output.evidence, targets.shown.to(self.device))

    def _miss(self, evidence: Tensor, shown: Tensor) -> Tensor:
        """The loss of which classes each tile shows; 0 if no label is known."""
        found, known = pool_evidence(_to_tiles(evidence, self.teaching.parts)), shown.isfinite()
        missed = F.binary_cross_entropy_with_logits(found[known], shown[known], reduction="sum")
        return missed / max(1, int(known.sum()))

    @torch.no_grad()
    def finished(self) -> SegmentNetwork:
        """Return the running mean for use.

        If the confidence is learned, the channels' weights, which make a channel likelier by their
        factor, are corrected for.
        """
        network = self.mean.folded()
        if self.teaching.soft:
            head = network.get_submodule("head")
            head.get_parameter("bias").sub_(self.weights[:, 0, 0].log())
        return network

    def state(self) -> dict[str, Any]:
        """Return the state on which the next step depends, as tensors, numbers and containers."""
        return {
            "network": self.network.state_dict(),
            "mean": self.mean.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "done": self.done,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a `state`."""
        self.network.load_state_dict(state["network"])
        self.mean.load_state_dict(state["mean"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.done = state["done"]


def _groups(network: SegmentNetwork, config: DistillConfig) -> list[dict[str, Any]]:
    """Group parameters by learning rate, and by whether they decay."""
    body = {id(parameter) for parameter in network.body.parameters()} if network.begun else set()
    body_rate = network.body_rate if config.body_rate is None else config.body_rate
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        slow = id(parameter) in body
        if slow and not body_rate:
            parameter.requires_grad_(False)
            continue
        groups.setdefault((slow, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "top": config.learning_rate * (body_rate if slow else 1.0),
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (slow, decays), parameters in groups.items()
    ]
