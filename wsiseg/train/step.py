"""One training step: forward, losses, backward, AdamW, schedule; and its whole state."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wsiseg.config import TrainConfig
from wsiseg.model.checkpoint import trained_state
from wsiseg.model.construct import ConStruct
from wsiseg.model.losses import MemoryBank
from wsiseg.train.contrast import contrast
from wsiseg.train.features import Seen

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


def poly_rate(step: int, steps: int, warmup: int = 0, power: float = 1.0) -> float:
    """The share of the learning rate at a step: a rise, then a fall to 0 (construct.md 6).

    The fall, a line unless `power` bends it, counts from the end of the warm-up but would take
    `steps` from there, as in the released code; after `steps` the last value stays.
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
        How many there will be in all, for the schedule.
    generator
        For the first content of the memory bank.
    """

    def __init__(
        self,
        model: ConStruct,
        config: TrainConfig,
        steps: int,
        generator: torch.Generator | None = None,
    ) -> None:
        self.model, self.config, self.steps = model.train(), config, steps
        self.device = model.prototypes.device
        self.bank = MemoryBank(_BANK, model.encoder.embedding_dim, generator)
        self.bank.queue = self.bank.queue.to(self.device)
        self.optimizer = torch.optim.AdamW(
            [parameter for parameter in model.parameters() if parameter.requires_grad],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        self.done = 0
        """Steps taken."""

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        share = poly_rate(self.done, self.steps, self.config.warmup_steps)
        return self.config.learning_rate * share

    def step(self, seen: Seen, labels: Tensor) -> Losses:
        """Change the model by one batch; `labels` ``(B, K)`` float, 1 where the class shows."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        losses = self.losses(seen, labels)
        # To none, not to zero: what no gradient reaches must not decay either.
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.optimizer.step()
        self.done += 1
        return losses

    def losses(self, seen: Seen, labels: Tensor) -> Losses:
        """The losses of a batch; pushes its backgrounds into the memory bank."""
        with self.autocast():
            return self._losses(seen, labels.to(self.device))

    def autocast(self) -> torch.autocast:
        """Whatever is computed in it takes the precision of the settings."""
        wanted = self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=wanted)

    def _losses(self, seen: Seen, labels: Tensor) -> Losses:
        config = self.config
        output = self.model.read_pyramid(seen.pyramid, seen.stages or None)
        zero = output.logits.new_zeros(())
        classes = F.binary_cross_entropy_with_logits(output.logits, labels)
        structure = zero if output.structure_loss is None else output.structure_loss
        apart = zero
        if config.contrast_weight and labels.any():
            apart = contrast(self.model, seen.images, output.cams, labels, self.bank, config)
        total = classes + config.struct_weight * structure + config.contrast_weight * apart
        return Losses(total, classes, structure, apart)

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, as tensors, numbers and plain containers."""
        return {
            "model": trained_state(self.model),
            "optimizer": self.optimizer.state_dict(),
            "queue": self.bank.queue.cpu(),
            "pointer": self.bank.pointer,
            "done": self.done,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        self.model.load_state_dict(state["model"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        self.bank.queue, self.bank.pointer = state["queue"].to(self.device), state["pointer"]
        self.done = state["done"]
