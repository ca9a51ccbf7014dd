"""The optimiser Muon (Jordan et al. 2024): momentum whose directions are made equally long.

`torch.optim.Muon` takes matrices only and works in bfloat16, which most CPUs compute ten times as
slowly as float32.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["Muon", "orthogonalize"]

_QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the iteration: singular values end between 0.7 and 1.2, after five rounds."""
_ROUNDS = 5
_RMS = 0.2
"""Root mean square of an update at rate 1, as AdamW has it (Liu et al. 2025, section 2.2)."""


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay, for the weights of convolutions.

    Rates are those of AdamW. A weight of more than two dimensions counts as a matrix of its first
    dimension against all others.

    Parameters
    ----------
    params
        Weights of two or more dimensions; norms and biases belong to another optimiser.
    lr, momentum, weight_decay
        As in ``torch.optim.SGD``.
    """

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # takes no closure
        """Move every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, group)

    def _move(self, weight: Tensor, gradient: Tensor, group: dict[str, float]) -> None:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        mean = state["momentum"].lerp_(gradient, 1 - group["momentum"])
        direction = gradient.lerp(mean, group["momentum"]).flatten(1)
        update = orthogonalize(direction) * (_RMS * max(direction.shape) ** 0.5)
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.sub_(update.view_as(weight), alpha=group["lr"])


def orthogonalize(matrix: Tensor) -> Tensor:
    """Set all singular values of ``(M, N)`` to about 1, by a Newton-Schulz iteration.

    A round multiplies the matrix from the left by a polynomial of its Gram matrix, so all rounds
    are done on that, the smaller side squared, and the matrix itself is multiplied once.
    """
    wide: Tensor = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    a, b, c = _QUINTIC
    wide = wide / (wide.norm() + 1e-7)
    gram, one = wide @ wide.T, torch.eye(len(wide), dtype=wide.dtype, device=wide.device)
    product = one
    for _ in range(_ROUNDS):
        factor = a * one + b * gram + c * gram @ gram
        product, gram = factor @ product, factor @ gram @ factor
        gram = (gram + gram.T) / 2  # rounding must not make it lopsided
    wide = product @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T
