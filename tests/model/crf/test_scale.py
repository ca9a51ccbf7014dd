"""One pixel in four worked on, and only those near a border: the same labels but for a few."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.crf.cases import make_case, saved_case
from wsiseg.config import CrfConfig
from wsiseg.model.crf import refine
from wsiseg.model.crf.region import find_region, whole_region

ALL = CrfConfig(backend="numba")
HALF = CrfConfig(backend="numba", scale=2)
NEAR = CrfConfig(backend="numba", band=32)
BOTH = CrfConfig(backend="numba", scale=2, band=32)


def agreement(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.argmax(1) == other.argmax(1)).float().mean())


def two_halves(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two classes beside each other, both in sight of plain tissue far from their border."""
    probabilities, image = make_case(height, width, 3, 5)
    side = torch.arange(width) < width // 2
    ramp = torch.where(side, 0.6, 0.3).expand(height, width)
    values = torch.stack([ramp, 0.9 - ramp, torch.full_like(ramp, 0.1)])
    return (values + 0.02 * probabilities[0])[None], image


@pytest.mark.parametrize(("name", "least"), [("p1_sharp", 0.994), ("p5_nonsquare_weak", 0.98)])
def test_one_pixel_in_four_gives_the_labels_of_all(name: str, least: float) -> None:
    case = saved_case(name)
    whole = refine(case.probabilities, case.image, ALL)
    half = refine(case.probabilities, case.image, HALF)
    assert agreement(half, whole) >= least
    # Where every pixel reads at its own place, it is more than its neighbour's label spread out.
    coarse = refine(case.probabilities, case.image, HALF)[..., ::2, ::2]
    spread = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert agreement(half, whole) > agreement(spread, whole)


def test_what_is_far_from_a_border_keeps_its_class_and_the_rest_its_labels() -> None:
    probabilities, image = two_halves(96, 320)
    near = refine(probabilities, image, NEAR)
    assert agreement(near, refine(probabilities, image, ALL)) >= 0.9999
    assert torch.equal(near[0, :, :, 0], torch.tensor([1.0, 0, 0])[:, None].expand(3, 96))
    assert 0 < float(near[0, 0, :, 158:162].min()) < 1
    assert agreement(refine(probabilities, image, BOTH), near) >= 0.995


def test_without_any_border_nothing_is_worked_on() -> None:
    probabilities, image = two_halves(40, 64)
    q = refine(probabilities[..., :30], image[..., :30], BOTH)
    assert torch.equal(q, torch.tensor([1.0, 0, 0])[None, :, None, None].expand(1, 3, 40, 30))


def test_a_crop_agrees_with_the_whole() -> None:
    probabilities, image = make_case(208, 272, 4, 5, cell=20)
    whole = refine(probabilities, image, BOTH)[..., 128:, 128:]
    crop = refine(probabilities[..., 64:, 64:], image[..., 64:, 64:], BOTH, corner=(64, 64))
    assert agreement(crop[..., 64:, 64:], whole) >= 0.9995


@settings(max_examples=10, deadline=None)
@given(
    classes=st.integers(1, 9), height=st.integers(1, 41), width=st.integers(1, 41),
    scale=st.sampled_from([1, 2]), band=st.sampled_from([0, 1, 32]),
)  # fmt: skip
def test_q_is_a_distribution_for_any_shape(classes, height, width, scale, band):
    random = torch.Generator().manual_seed(height)
    probabilities = torch.rand(1, classes, height, width, generator=random)
    image = torch.randint(0, 256, (1, 3, height, width), generator=random).to(torch.uint8)
    q = refine(probabilities, image, CrfConfig(backend="numba", scale=scale, band=band))
    assert torch.allclose(q.sum(1), torch.ones(()), atol=1e-5)
    assert float(q.min()) >= 0


def test_without_iterations_q_is_the_prior() -> None:
    probabilities, image = two_halves(16, 16)
    q = refine(probabilities, image, BOTH.model_copy(update={"iterations": 0}))
    assert torch.allclose(q, probabilities / probabilities.sum(1, keepdim=True), atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 60), width=st.integers(1, 60), scale=st.sampled_from([1, 2]),
    band=st.integers(1, 40), seed=st.integers(0, 99),
)  # fmt: skip
def test_a_region_holds_all_that_is_near_a_border_and_each_pixel_once(
    height: int, width: int, scale: int, band: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    labels = (random.random((height, width)) < 0.002).astype(np.uint8)
    region = find_region(labels, band, scale)
    worked_on = np.zeros((height, width), int)
    first = 0
    for y, start, end, number in region.spans:
        assert number == first
        first += end - start
        worked_on[y, start:end] += 1
    assert first == region.pixels == worked_on.sum()
    assert worked_on.max() <= 1
    for y, x in np.argwhere(labels):
        reach = band // scale
        near = (slice(max(y - reach, 0), y + reach + 1), slice(max(x - reach, 0), x + reach + 1))
        assert worked_on[near].all() or (labels == labels[0, 0]).all()


def test_the_whole_is_every_pixel_strip_by_strip() -> None:
    spans = whole_region(3, 600).spans
    assert whole_region(3, 600).pixels == 1800
    assert spans[:, 1].tolist() == [0, 0, 0, 256, 256, 256, 512, 512, 512]
