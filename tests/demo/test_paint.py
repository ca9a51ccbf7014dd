from __future__ import annotations

import numpy as np
import pytest

from wsiseg.demo.layout import IMMUNE, NECROSIS, STROMA, TUMOR, plan_layout
from wsiseg.demo.nuclei import REACH, scatter_nuclei
from wsiseg.demo.paint import make_brush, paint_strip
from wsiseg.geometry import Size


@pytest.fixture(scope="module")
def parts():
    layout = plan_layout(Size(1500, 1100), np.random.default_rng(0))
    return layout, scatter_nuclei(layout, np.random.default_rng(1)), make_brush(
        np.random.default_rng(2)
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(parts):
    return paint_strip(*parts, 0, 1100)


@pytest.mark.parametrize("step", [97, 256])
def test_strips_equal_the_whole(parts, whole, step) -> None:
    strips = [paint_strip(*parts, y, min(y + step, 1100)) for y in range(0, 1100, step)]
    np.testing.assert_array_equal(np.concatenate(strips), whole)


def test_nuclei_between_rows_are_those_that_may_reach_them(parts) -> None:
    nuclei = parts[1]
    assert (np.diff(nuclei.y) >= 0).all()
    # The bound that lets strips leave the others out: edge and bumps reach 1.25 times as far.
    assert (1.25 * np.maximum(nuclei.long, nuclei.short) + 2).max() < REACH
    near = nuclei.between(300, 400)
    wanted = (nuclei.y >= 300 - REACH) & (nuclei.y < 400 + REACH)
    np.testing.assert_array_equal(near.x, nuclei.x[wanted])


def test_classes_look_like_themselves(parts, whole) -> None:
    labels = np.repeat(np.repeat(parts[0].truth.labels, 2, 0), 2, 1)[:1100, :1500]
    mean = {k: whole[labels == k].mean(axis=0) for k in (TUMOR, STROMA, IMMUNE, NECROSIS, 255)}
    dark = {k: (whole[labels == k][:, 0] < 110).mean() for k in mean}
    assert mean[255].min() > 238
    for label in (TUMOR, STROMA, IMMUNE, NECROSIS):
        red, green, blue = mean[label]
        assert green < red - 10, "tissue is pink or violet"
        assert green < blue - 10, "tissue is pink or violet"
    assert dark[IMMUNE] > 3 * max(dark[STROMA], dark[NECROSIS], dark[255])
    assert mean[TUMOR][0] < mean[STROMA][0] - 15
    assert mean[NECROSIS][0] > mean[TUMOR][0] + 15


def test_lymphocytes_are_strewn_over_other_classes() -> None:
    layout = plan_layout(Size(4000, 3000), np.random.default_rng(0))
    nuclei = scatter_nuclei(layout, np.random.default_rng(1))
    labels = layout.truth.labels[nuclei.y.astype(int) // 2, nuclei.x.astype(int) // 2]
    lymphocytes = (nuclei.dark > 1.1) & (nuclei.short > 8) & (nuclei.pale == 0)
    assert (labels[lymphocytes] == STROMA).sum() > 30
    assert (labels[lymphocytes] == TUMOR).sum() > 30
    assert (labels != 255).all()


def test_batches_of_stain_differ_a_little() -> None:
    one, two = (make_brush(np.random.default_rng(seed)).stains for seed in (1, 2))
    assert 0.01 < np.abs(one - two).max() < 0.3
