"""One training step: forward, losses, backward, AdamW, schedule; and its whole state."""

from __future__ import annotations

from functools import partial
from math import isfinite
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wsiseg.config import TrainConfig
from wsiseg.errors import TrainingError
from wsiseg.model.checkpoint import trained_state
from wsiseg.model.construct import ConStruct
from wsiseg.model.device import autocast
from wsiseg.model.losses import diversity_loss
from wsiseg.train.contrast import contrast
from wsiseg.train.exemplars import Recall
from wsiseg.train.features import Seen
from wsiseg.train.parallel import Group, SharedBank

__all__ = ["Losses", "Trainer", "poly_rate"]

_BANK = 2048


class Losses(NamedTuple):
    """The loss of one step and its parts, before weighting."""

    total: Tensor
    classes: Tensor
    """Binary cross entropy of the class logits."""
    structure: Tensor
    """Relational distillation; 0 without a teacher."""
    contrast: Tensor
    """Foreground plus background; 0 if no patch of the batch shows a class."""
    diversity: Tensor
    """How similarly a class's prototypes respond; 0 with one per class, or without a weight."""
    recall: Tensor
    """How far the CAMs of exemplars are from those before training; 0 without exemplars."""


def poly_rate(step: int, steps: int, warmup: int = 0, power: float = 1.0) -> float:
    """Factor of the learning rate at a step: a linear warm-up, then a polynomial decay to 0.

    The decay, linear if `power` is 1, starts at the end of the warm-up but would take `steps` from
    there, as in the released code; after `steps` the last value stays.
    """
    if step < warmup:
        return 1 - (1 - step / warmup) * (1 - 1e-6)
    return float((1 - (min(step, steps - 1) - warmup) / steps) ** power)


class Trainer:
    """A model in training, with optimiser, schedule and memory bank.

    Parameters
    ----------
    model
        Trained in place; switched to training mode.
    steps
        Number of steps in all, for the schedule.
    generator
        For the initial content of the memory bank.
    group
        The processes that train together; None for this one alone.
    """

    def __init__(
        self,
        model: ConStruct,
        config: TrainConfig,
        steps: int,
        generator: torch.Generator | None = None,
        group: Group | None = None,
    ) -> None:
        self.model, self.config, self.steps = model.train(), config, steps
        self.group = group or Group()
        self.device = model.prototypes.device
        self.bank = SharedBank(_BANK, model.encoder.embedding_dim, generator, self.group)
        self.bank.queue = self.bank.queue.to(self.device)
        recalls = model.exemplars is not None and config.recall_weight > 0
        self.recall = Recall(model, config.seed) if recalls else None
        self.optimizer = torch.optim.AdamW(
            [parameter for parameter in model.parameters() if parameter.requires_grad],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "float16")
        self.done = 0
        """Steps taken, without those skipped because a gradient overflowed."""

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        factor = poly_rate(self.done, self.steps, self.config.warmup_steps)
        return self.config.learning_rate * factor

    def step(self, seen: Seen, labels: Tensor, weights: Tensor | None = None) -> Losses:
        """Update the model by one batch; `labels` ``(B, K)`` float, 1 where the class is present.

        `weights` ``(B, K)`` float say how much each label counts, 0 where it is unknown.

        If several processes train, these are this one's rows of the batch, and all of them return
        the losses of the whole batch.

        Raises
        ------
        TrainingError
            If a loss is not finite. The weights are then unchanged, but batch statistics and
            memory bank have taken in the batch. Preset `reference` goes on, as the released code
            does.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        losses = self.losses(seen, labels, weights)
        whole = Losses(*self.group.add(torch.stack(losses).detach()))
        if self.config.preset != "reference":
            _check_finite(whole)
        # To None, not to zero: what no gradient reaches must not decay either.
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(losses.total).backward()  # type: ignore[no-untyped-call]  # torch's own
        self.group.add_gradients(self.model.parameters())
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.done += int(self.scaler.get_scale() >= scale)
        return whole

    def losses(self, seen: Seen, labels: Tensor, weights: Tensor | None = None) -> Losses:
        """Compute this process's part of the losses; the bank takes in the batch's backgrounds."""
        weights = None if weights is None else weights.to(self.device)
        with self.autocast():
            return self._losses(seen, labels.to(self.device), weights)

    def autocast(self) -> torch.autocast:
        """Return a context that computes in the precision of the settings."""
        return autocast(self.device, self.config.precision)

    def _losses(self, seen: Seen, labels: Tensor, weights: Tensor | None) -> Losses:
        config = self.config
        output = self.model.read_pyramid(seen.pyramid, seen.stages or None)
        zero = output.logits.new_zeros((), dtype=torch.float32)
        # Losses are means over the batch, so a process's part counts by its share of the rows.
        share = self.group.share(len(labels), self.device)
        logits = output.logits
        if seen.known is not None:
            logits = self.model.pool(output.cams, seen.known)
        classes = share * F.binary_cross_entropy_with_logits(logits, labels, weights)
        structure = zero if output.structure_loss is None else share * output.structure_loss
        contrasts = zero
        if config.contrast_weight:
            contrasts = contrast(
                self.model, seen.images, output.cams, labels, self.bank, config,
                partial(self.group.share, device=self.device),
            )  # fmt: skip
        total = classes + config.struct_weight * structure + config.contrast_weight * contrasts
        diversity = zero
        if config.diversity_weight and output.cosines.shape[2] > 1:
            diversity = share * diversity_loss(output.cosines, labels)
            total = total + config.diversity_weight * diversity
        recall = zero
        if self.recall is not None:
            recall = share * self.recall.loss(self.model, self.done)
            total = total + config.recall_weight * recall
        parts = (classes, structure, contrasts, diversity, recall)
        return Losses(total, *(part.float() for part in parts))

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, as tensors, numbers and plain containers."""
        return {
            "model": trained_state(self.model),
            "optimizer": self.optimizer.state_dict(),
            "queue": self.bank.queue.cpu(),
            "pointer": self.bank.pointer,
            "done": self.done,
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a `state`, to continue from it."""
        self.model.load_state_dict(state["model"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        self.bank.queue, self.bank.pointer = state["queue"].to(self.device), state["pointer"]
        self.done = state["done"]
        self.scaler.load_state_dict(state["scaler"])


def _check_finite(losses: Losses) -> None:
    # The parts first: where one is not finite, neither is the total.
    for name in (*Losses._fields[1:], "total"):
        value = getattr(losses, name).item()
        if not isfinite(value):
            raise TrainingError(f"the loss {name!r} is {value}")
