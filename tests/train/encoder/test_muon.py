from __future__ import annotations

import pytest
import torch
from torch import nn

from wsiseg.train.encoder.muon import Muon, orthogonalize


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (9, 9)])
def test_singular_values_become_about_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 30
    changed = orthogonalize(matrix)
    assert changed.shape == shape
    values = torch.linalg.svdvals(changed)
    assert 0.5 < values.min() <= values.max() < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    assert nn.functional.cosine_similarity(changed.flatten(), (left @ right).flatten(), 0) > 0.97


def moves(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> list[torch.Tensor]:
    """Where `weight` is after each of some steps with given gradients."""
    generator, seen = torch.Generator().manual_seed(2), []
    for _ in range(4):
        weight.grad = torch.randn(weight.shape, generator=generator)
        optimizer.step()
        seen.append(weight.detach().flatten(1).clone())
    return seen


@pytest.mark.parametrize("shape", [(8, 3, 3, 3), (30, 2, 1, 1)])
def test_steps_are_those_of_torch(shape: tuple[int, ...]) -> None:
    """As far as bfloat16, in which torch's own works, can say."""
    peer = getattr(torch.optim, "Muon", None)
    if peer is None:
        pytest.skip("this torch has no Muon")
    start = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05}
    ours = nn.Parameter(start.clone())
    flat = nn.Parameter(start.flatten(1).clone())
    theirs = peer([flat], adjust_lr_fn="match_rms_adamw", **settings)
    for own, other in zip(moves(Muon([ours], **settings), ours), moves(theirs, flat), strict=True):
        torch.testing.assert_close(own, other, rtol=0.0, atol=5e-3)


def test_a_weight_without_a_gradient_stays() -> None:
    still, moved = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(2, 3))
    optimizer = Muon([still, moved], lr=0.1)
    moved.grad = torch.eye(2, 3)
    optimizer.step()
    assert torch.equal(still, torch.ones(2, 3))
    assert not torch.equal(moved, still)
