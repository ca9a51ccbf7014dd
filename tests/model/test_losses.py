import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from wsiseg.model.losses import (
    MemoryBank,
    background_loss,
    contrast_loss,
    cut_regions,
    foreground_loss,
    region_masks,
    relational_loss,
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def naive_relational(student: torch.Tensor, teacher: torch.Tensor) -> float:
    """Every pair of tokens, one by one, in float64."""
    total, count = 0.0, 0
    for s, t in zip(student.double(), teacher.double(), strict=True):
        s, t = s.flatten(1).T, t.flatten(1).T
        for i in range(len(s)):
            for j in range(len(s)):
                own = F.cosine_similarity(s[i], s[j], dim=0)
                wanted = F.cosine_similarity(t[i], t[j], dim=0)
                total, count = total + float((own - wanted) ** 2), count + 1
    return total / count


@settings(max_examples=12, deadline=None)
@given(
    st.integers(1, 2), st.integers(1, 24), st.integers(1, 24), st.integers(1, 4), st.integers(1, 4)
)
def test_relational_loss_is_the_mean_over_all_pairs(batch, channels, other, height, width):
    student = random(batch, channels, height, width, seed=1)
    teacher = random(batch, other, height, width, seed=2)
    got = float(relational_loss(student, teacher))
    assert got == pytest.approx(naive_relational(student, teacher), abs=1e-5)


def test_relational_loss_never_makes_the_affinities():
    """Few channels, many tokens: the short way has the long way's value and gradient."""
    student = random(2, 5, 24, 24).requires_grad_()
    teacher = random(2, 3, 24, 24, seed=1)
    short = relational_loss(student, teacher)
    s, t = (F.normalize(m.flatten(2), dim=1).mT for m in (student, teacher))
    long = ((s @ s.mT - t @ t.mT) ** 2).mean()
    assert short.item() == pytest.approx(long.item(), rel=1e-5)
    grads = [torch.autograd.grad(loss, student)[0] for loss in (short, long)]
    torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-8)


def test_relational_loss_resizes_the_teacher_and_caps_the_tokens():
    student, teacher = random(1, 4, 80, 80), random(1, 3, 20, 20, seed=1)
    resized = F.interpolate(teacher, (80, 80), mode="bilinear", align_corners=False)
    pooled = [F.adaptive_avg_pool2d(m, 64) for m in (student, resized)]
    assert float(relational_loss(student, teacher)) == pytest.approx(
        float(relational_loss(*pooled))
    )
    assert float(relational_loss(student, student)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_relational_loss_is_float32s_in_half_precision(dtype):
    """784 tokens that are nearly alike: their squared sums are beyond what float16 can hold."""
    student, teacher = ((1 + 0.1 * random(1, 16, 28, 28, seed=s)).to(dtype) for s in (0, 1))
    student = student.requires_grad_()
    with torch.autocast("cpu", dtype):
        got = relational_loss(student, teacher)
    want = relational_loss(student.float(), teacher.float())
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(want.item(), rel=1e-5)
    assert got > 0
    got.backward()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_contrast_loss_is_float32s_in_half_precision(dtype):
    regions, anchors = random(2, 8).to(dtype), random(3, 8, seed=1)
    labels, losses = torch.tensor([0, 2]), []
    for enabled in (True, False):
        bank = MemoryBank(8, 8, torch.Generator().manual_seed(0))
        with torch.autocast("cpu", dtype, enabled=enabled):
            losses.append(contrast_loss(regions, regions, labels, anchors, bank))
    assert losses[0].dtype == torch.float32
    assert losses[0].item() == losses[1].item()


def test_region_masks_reach_half_of_the_images_strongest():
    cams = torch.tensor([[[[4.0, 1.0]], [[2.0, 1.9]]], [[[-1.0, -2.0]], [[-3.0, -1.0]]]])
    maps, masks = region_masks(cams, (1, 2))
    assert masks[0].tolist() == [[[True, False]], [[True, False]]]
    assert masks[1].all(), "a map without activation is all region"
    assert float(maps.min()) == 0
    grown, _ = region_masks(cams, (1, 3))
    assert grown[0, 0].tolist() == [[4.0, 2.5, 1.0]]  # corners aligned


def test_cut_regions_fill_with_the_mean():
    images, masks = torch.ones(2, 3, 1, 2), torch.zeros(2, 2, 1, 2, dtype=torch.bool)
    masks[1, 0, 0, 1] = True
    regions = cut_regions(images, masks, torch.tensor([[0.0, 1.0], [1.0, 0.0]]), (0.1, 0.2, 0.3))
    assert regions.labels.tolist() == [1, 0]
    mean = torch.tensor([0.1, 0.2, 0.3])
    torch.testing.assert_close(regions.foreground[1, :, 0, 0], mean)
    torch.testing.assert_close(regions.foreground[1, :, 0, 1], torch.ones(3))
    torch.testing.assert_close(regions.background[1, :, 0, 1], mean)
    torch.testing.assert_close(regions.foreground[0], mean[:, None, None].expand(3, 1, 2))


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(a @ b / a.norm() / b.norm())


def test_infonce_equals_the_formula():
    region, own = random(3, 6), random(3, 6, seed=1)
    others, queue = random(3, 2, 6, seed=2), random(5, 6, seed=3)
    fore, back = [], []
    for i in range(3):
        up = math.exp(cosine(region[i], own[i]) / 0.07)
        rest = sum(math.exp(cosine(region[i], other) / 0.07) for other in others[i])
        stored = sum(math.exp(cosine(region[i], row) / 0.07) for row in queue)
        fore.append(-math.log(up / (up + rest + stored)))
        back.append(math.log(up + rest) - math.log(rest))
    assert float(foreground_loss(region, own, others, queue)) == pytest.approx(
        np.mean(fore), rel=1e-4
    )
    assert float(background_loss(region, own, others)) == pytest.approx(np.mean(back), rel=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.lists(st.integers(0, 8), max_size=5))
def test_memory_bank_keeps_the_last(size, pushes):
    """Against a plain list of everything that was ever pushed."""
    bank = MemoryBank(size, 3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(bank.queue.norm(dim=1), torch.ones(size))
    ever = list(bank.queue.clone())
    for number, count in enumerate(pushes):
        rows = random(count, 3, seed=number)
        bank.push(rows)
        ever += list(F.normalize(rows, dim=1))
    kept = sorted(row.tolist() for row in bank.queue)
    assert kept == sorted(row.tolist() for row in ever[-size:])


def test_contrast_loss_pulls_prototypes_to_their_regions():
    """Gradients reach the anchors: a step along them lowers the loss; embeddings get none."""
    labels = torch.tensor([0, 2, 1])
    anchors = random(3, 8).requires_grad_()
    fore, back = random(3, 8, seed=1), random(3, 8, seed=2)
    fresh = lambda: MemoryBank(4, 8, torch.Generator().manual_seed(0))  # noqa: E731 - short
    bank = fresh()
    before = contrast_loss(fore, back, labels, anchors, bank)
    torch.testing.assert_close(bank.queue[:3], F.normalize(back, dim=1))
    (gradient,) = torch.autograd.grad(before, anchors)
    assert gradient.abs().min().item() > 0
    after = contrast_loss(fore, back, labels, anchors - 0.05 * gradient, fresh())
    assert after.item() < before.item()


def test_contrast_loss_sets_own_class_against_all_others():
    labels, anchors = torch.tensor([1, 0]), random(3, 8)
    fore, back = random(2, 8, seed=1), random(2, 8, seed=2)
    bank = MemoryBank(4, 8, torch.Generator().manual_seed(0))
    queue = bank.queue.clone()
    others = torch.stack([anchors[[0, 2]], anchors[[1, 2]]])
    want = foreground_loss(fore, anchors[labels], others, queue)
    want = want + background_loss(back, anchors[labels], others)
    assert float(contrast_loss(fore, back, labels, anchors, bank)) == pytest.approx(float(want))
