"""Crops of one raster meet one lattice, wherever they begin."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from tests.model.crf.cases import make_case
from wsiseg.config import CrfConfig
from wsiseg.model.crf import refine

NUMBA = CrfConfig(backend="numba")
LATTICES = [
    "numba",
    pytest.param(
        "pydensecrf",
        marks=pytest.mark.skipif(not find_spec("pydensecrf"), reason="pydensecrf is not installed"),
    ),
]


def disagreement(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.argmax(1) != other.argmax(1)).float().mean())


@pytest.mark.parametrize("backend", LATTICES)
@pytest.mark.parametrize(("x", "y"), [(0, 64), (64, 0), (48, 56)])
def test_a_crop_agrees_with_the_whole_only_if_it_knows_its_corner(
    x: int, y: int, backend: str
) -> None:
    config = CrfConfig.model_validate({"backend": backend})
    probabilities, image = make_case(288, 288, 4, 5, cell=20)
    whole = refine(probabilities, image, config)
    rows, columns = slice(y, None), slice(x, None)
    crop = probabilities[..., rows, columns], image[..., rows, columns]
    # Inside the margin of 64 pixels, on the sides where the crop was cut.
    inner = (..., slice(64 if y else 0, None), slice(64 if x else 0, None))
    wanted = whole[..., rows, columns][inner]
    placed = disagreement(refine(*crop, config, corner=(x, y))[inner], wanted)
    lost = disagreement(refine(*crop, config)[inner], wanted)
    assert placed <= 2e-4
    assert lost > placed


def test_the_whole_may_lie_anywhere() -> None:
    probabilities, image = make_case(64, 64, 3, 1)
    at_corner = refine(probabilities, image, NUMBA)
    far_away = refine(probabilities, image, NUMBA, corner=(81_920, 40_960))
    assert disagreement(at_corner, far_away) < 0.02
    assert torch.isfinite(far_away).all()
