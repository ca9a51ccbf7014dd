"""One pixel in four worked on, and only those near a border: the same labels but for a few."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.crf.cases import make_case, saved_case
from wsiseg.config import CrfConfig
from wsiseg.model.crf import refine, refine_labels
from wsiseg.model.crf.region import find_region, whole_region

ALL = CrfConfig(backend="numba")
HALF = CrfConfig(backend="numba", scale=2)
NEAR = CrfConfig(backend="numba", band=32)
BOTH = CrfConfig(backend="numba", scale=2, band=24)


def agreement(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one == other).float().mean())


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
    whole = refine_labels(case.probabilities, case.image, ALL)
    half = refine_labels(case.probabilities, case.image, HALF)
    assert agreement(half, whole) >= least
    # Where every pixel reads at its own place, it is more than its neighbour's label spread out.
    coarse = refine_labels(case.probabilities, case.image, HALF)[..., ::2, ::2]
    spread = coarse.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert agreement(half, whole) > agreement(spread, whole)


def test_what_is_far_from_a_border_keeps_its_class_and_the_rest_its_labels() -> None:
    probabilities, image = two_halves(96, 320)
    near = refine_labels(probabilities, image, NEAR)
    assert agreement(near, refine_labels(probabilities, image, ALL)) >= 0.9999
    winners = probabilities.argmax(1).to(torch.uint8)
    assert torch.equal(near[..., :120], winners[..., :120])
    assert not torch.equal(near, winners)
    assert agreement(refine_labels(probabilities, image, BOTH), near) >= 0.995


def test_without_any_border_nothing_is_worked_on() -> None:
    probabilities, image = two_halves(40, 64)
    labels = refine_labels(probabilities[..., :30], image[..., :30], BOTH)
    assert torch.equal(labels, torch.zeros(1, 40, 30, dtype=torch.uint8))


def test_a_crop_agrees_with_the_whole() -> None:
    probabilities, image = make_case(208, 272, 4, 5, cell=20)
    whole = refine_labels(probabilities, image, BOTH)[..., 128:, 128:]
    crop = refine_labels(probabilities[..., 64:, 64:], image[..., 64:, 64:], BOTH, corner=(64, 64))
    assert agreement(crop[..., 64:, 64:], whole) >= 0.9995


@settings(max_examples=10, deadline=None)
@given(
    classes=st.integers(1, 9), height=st.integers(1, 41), width=st.integers(1, 41),
    scale=st.sampled_from([1, 2]), band=st.sampled_from([0, 1, 32]),
)  # fmt: skip
def test_any_shape_is_labelled_with_possible_classes(classes, height, width, scale, band):
    random = torch.Generator().manual_seed(height)
    probabilities = torch.rand(2, classes, height, width, generator=random)
    possible = torch.rand(classes, generator=random) < 0.7
    probabilities[:, ~possible] = 0
    image = torch.randint(0, 256, (2, 3, height, width), generator=random).to(torch.uint8)
    config = CrfConfig(backend="numba", scale=scale, band=band)
    labels = refine_labels(probabilities, image, config)
    assert labels.dtype == torch.uint8
    assert labels.shape == (2, height, width)
    assert possible[labels.long()].all() or not possible.any()
    q = refine(probabilities, image, config)  # of every pixel, whatever saves labels work
    assert torch.equal(q, refine(probabilities, image, ALL))
    assert torch.allclose(q.sum(1), torch.ones(()), atol=1e-5)
    assert float(q.min()) >= 0


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_labels_are_the_best_of_q_with_and_without_impossible_classes(backend: str) -> None:
    config = CrfConfig.model_validate({"backend": backend})
    probabilities, image = make_case(40, 56, 4, 2)
    best = refine(probabilities, image, config).argmax(1).to(torch.uint8)
    assert torch.equal(refine_labels(probabilities, image, config), best)
    none = torch.zeros(1, 1, 40, 56)
    more = torch.cat([none, probabilities[:, :2], none, probabilities[:, 2:], none], 1)
    labels = refine_labels(more, image, config)
    assert torch.equal(labels, torch.tensor([1, 2, 4, 5], dtype=torch.uint8)[best.long()])


def test_what_is_known_already_changes_nothing() -> None:
    probabilities, image = make_case(48, 64, 3, 6)
    winners = probabilities.argmax(1).to(torch.uint8)
    kept = winners.clone()
    labels = refine_labels(probabilities, image, BOTH, winners=winners)
    assert torch.equal(labels, refine_labels(probabilities, image, BOTH))
    assert torch.equal(winners, kept)


def test_without_iterations_the_most_probable_class_stays() -> None:
    probabilities, image = two_halves(16, 16)
    none = BOTH.model_copy(update={"iterations": 0})
    assert torch.equal(refine_labels(probabilities, image, none), probabilities.argmax(1))
    q = refine(probabilities, image, none)
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
