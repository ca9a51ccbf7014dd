"""One step of the second stage: what a batch teaches, the loss, AdamW, and the whole state."""

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
from wsiseg.errors import TrainingError
from wsiseg.model.device import autocast
from wsiseg.model.segment import SegmentNetwork
from wsiseg.train.encoder.fit import follow

__all__ = ["Targets", "Teaching", "Trainer", "plan_teaching", "to_targets"]

_MOST = 5.0
"""A rare class counts at most so many times as much: few pixels are not a whole class."""
_WARM = 0.1  # of the steps the rate rises
_CLIP = 2.0
_FOLLOW = 0.995


class Teaching(NamedTuple):
    """How pixels count."""

    least: NDArray[np.uint8]
    """``(K + 1,)``: the least confidence by which a pixel of each label teaches."""
    weights: NDArray[np.float32]
    """``(C,)`` of each channel of the network: K, or K + 1 if background is learned."""
    soft: bool
    """Whether the confidence is what is to be learned: a pixel's label has it, and the other
    channels share the rest, so that what is calibrated stays so."""


class Targets(NamedTuple):
    """What a batch teaches, at the places of the logits."""

    shares: Tensor
    """``(B, C, h, w)`` float32: the weight by which each channel is wanted."""
    total: Tensor
    """Scalar: their sum without the weights of the channels; 0 if nothing teaches."""


def plan_teaching(windows: LabelledWindows, config: DistillConfig) -> Teaching:
    """How the pixels of these windows count, by what all of them hold."""
    least = choose_least(windows, config)
    channels = len(windows.palette) + (config.background == "learn")
    used = np.arange(256) >= least[:, None]
    counts = (windows.survey.counts * used).sum(1)[:channels].astype(float)
    shown = counts > 0
    weights = np.ones(channels)
    if config.balance and shown.any():
        mean = counts[shown].mean()
        weights[shown] = np.minimum(np.sqrt(mean / counts[shown]), _MOST)
    return Teaching(least, weights.astype(np.float32), windows.calibrated)


def to_targets(views: Views, teaching: Teaching, stride: int) -> Targets:
    """Average over each place what its pixels teach; a pixel counts by its confidence."""
    channels = len(teaching.weights)
    labels = torch.from_numpy(views.labels).long()
    sure = torch.from_numpy(views.confidence).float() / 255
    known = labels < channels
    least = torch.from_numpy(teaching.least)[labels.clamp(max=len(teaching.least) - 1)]
    used = known & (torch.from_numpy(views.confidence) >= least)
    weight = sure * used
    other = weight * (1 - sure) / max(1, channels - 1) if teaching.soft else torch.zeros(())
    own = weight * sure if teaching.soft else weight
    shares = torch.stack(
        [
            F.avg_pool2d(torch.where(labels == channel, own, other)[:, None], stride)[:, 0]
            for channel in range(channels)
        ],
        1,
    )
    return Targets(shares, shares.sum())


class Trainer:
    """A network in training, the running mean of its numbers, optimiser and schedule.

    Parameters
    ----------
    network
        Trained in place; switched to training mode.
    steps
        How many there will be in all, for the schedule.
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
        """The share of the learning rate of the next step: a line up, then half a cosine down."""
        warm = max(1, round(_WARM * self.steps))
        if self.done < warm:
            return (self.done + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (self.done - warm) / max(1, self.steps - warm)))

    def step(self, views: Views) -> float:
        """Change the network by one batch, and say the loss; 0 if nothing in it teaches.

        Raises
        ------
        TrainingError
            If the loss is not a finite number; the weights are as they were.
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
        follow(self.mean, self.network, min(_FOLLOW, self.done / (self.done + 9)))
        return value

    def _loss(self, images: Tensor, targets: Targets) -> Tensor:
        with autocast(self.device, self.config.precision):
            logits = self.network(images)
        wanted = targets.shares.to(self.device) * self.weights
        total = targets.total.to(self.device).clamp_min(1e-6)
        loss: Tensor = -(wanted * logits.float().log_softmax(1)).sum() / total
        return loss

    @torch.no_grad()
    def finished(self) -> SegmentNetwork:
        """The running mean as it is used. If the confidence is learned, what the weights of the
        channels did to it is taken off: they make a channel as much likelier as they weigh."""
        made = self.mean.folded()
        if self.teaching.soft:
            head = made.get_submodule("head")
            head.get_parameter("bias").sub_(self.weights[:, 0, 0].log())
        return made

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, as tensors, numbers and plain containers."""
        return {
            "network": self.network.state_dict(),
            "mean": self.mean.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "done": self.done,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        self.network.load_state_dict(state["network"])
        self.mean.load_state_dict(state["mean"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.done = state["done"]


def _groups(network: SegmentNetwork, config: DistillConfig) -> list[dict[str, Any]]:
    """Parameters by rate, and by whether they decay."""
    body = {id(parameter) for parameter in network.body.parameters()} if network.begun else set()
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        slow = id(parameter) in body
        if slow and not config.body_rate:
            parameter.requires_grad_(False)
            continue
        groups.setdefault((slow, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": held,
            "top": config.learning_rate * (config.body_rate if slow else 1.0),
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (slow, decays), held in groups.items()
    ]
