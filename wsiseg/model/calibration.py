"""Calibration: scales and offsets of logits, fitted on data that the model was not trained on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wsiseg.errors import DataError

__all__ = ["fit_calibration", "fit_temperature"]

_PENALTY = 1e-3
"""Weight of the penalty that keeps the scales of rare classes near the common one."""


def fit_calibration(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Fit the scale and offset of each class that make the labels most likely.

    Vector scaling (Guo et al. 2017, "On calibration of modern neural networks"): temperature by
    class and an offset, by L-BFGS on the cross entropy. It can change which class is the largest,
    which a single temperature cannot.

    Parameters
    ----------
    logits
        ``(N, C)`` float, of places on slides that the model was not trained on.
    labels
        ``(N,)`` int64, their classes.
    weights
        ``(N,)`` float, the weight of each place; None: equal.

    Returns
    -------
    ``(C, 2)`` float32: calibrated logits are ``logits * scale + offset``. A class without labels
    gets the common scale and no offset.

    Raises
    ------
    DataError
        If there are no places, or a number is not finite.
    """
    if not len(labels) or not logits.isfinite().all():
        raise DataError(
            f"calibration needs places with finite logits; got {len(labels)} places, "
            f"{int((~logits.isfinite()).sum())} numbers that are not finite"
        )
    values, count = logits.double(), logits.shape[1]
    share = torch.ones(len(labels), dtype=torch.double) if weights is None else weights.double()
    share = share / share.sum()
    common = torch.zeros((), dtype=torch.double, requires_grad=True)
    own = torch.zeros(count, 2, dtype=torch.double, requires_grad=True)
    solver = torch.optim.LBFGS([common, own], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        scaled = values * (common + own[:, 0]).exp() + own[:, 1]
        value = (F.cross_entropy(scaled, labels, reduction="none") * share).sum()
        value = value + _PENALTY * own.square().sum()
        value.backward()  # type: ignore[no-untyped-call]  # torch's own
        return value

    solver.step(loss)  # type: ignore[no-untyped-call]  # torch's own
    seen = torch.bincount(labels, minlength=count) > 0
    fitted = torch.where(seen[:, None], own.detach(), 0)
    scale = (common.detach() + fitted[:, 0]).exp()
    return torch.stack([scale, fitted[:, 1]], 1).float()


def fit_temperature(logits: Tensor, labels: Tensor, independent: int) -> float:
    """Fit one scale of all logits that makes the labels most likely; it changes no prediction.

    For few labels, which `fit_calibration` would overfit (Guo et al. 2017, temperature scaling).
    Targets are smoothed as if one more place could be of any class (after Platt 1999), so that
    labels which the model predicts without error do not make it certain of everything.

    Parameters
    ----------
    logits, labels
        ``(N, C)`` float and ``(N,)`` int64, as in `fit_calibration`.
    independent
        Number of independent observations among the places, such as the windows that they lie in.
    """
    values = logits.double()
    log_scale = torch.zeros((), dtype=torch.double, requires_grad=True)
    solver = torch.optim.LBFGS([log_scale], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        scaled = values * log_scale.exp()
        value = F.cross_entropy(scaled, labels, label_smoothing=1 / (independent + 1))
        value.backward()  # type: ignore[no-untyped-call]  # torch's own
        return value

    solver.step(loss)  # type: ignore[no-untyped-call]  # torch's own
    return float(log_scale.detach().exp())
