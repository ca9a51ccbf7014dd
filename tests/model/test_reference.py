"""Losses and metrics against numbers that the released ConStruct code gave (reference set A)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from wsiseg.evaluate import confusion_matrix, score
from wsiseg.model.losses import (
    MemoryBank,
    background_loss,
    foreground_loss,
    region_masks,
    relational_loss,
)
from wsiseg.train.step import poly_rate

LR_WARM = [
    2e-11,
    5.000015e-06,
    1.000001e-05,
    1.500001e-05,
    2e-05,
    1.849355e-05,
    1.697332e-05,
    1.543779e-05,
    1.388506e-05,
    1.231275e-05,
    1.071773e-05,
    9.095779e-06,
    9.095779e-06,
    9.095779e-06,
    9.095779e-06,
]


@pytest.fixture(scope="module")
def unit():
    with np.load(Path(__file__).with_name("reference_units.npz")) as data:
        return {name: torch.from_numpy(np.asarray(data[name])) for name in data.files}


@pytest.mark.parametrize("case", ["same", "up", "down"])
def test_relational_loss(unit, case):
    got = relational_loss(unit[f"struct.{case}.student"], unit[f"struct.{case}.teacher"])
    assert got.item() == pytest.approx(unit[f"struct.{case}.loss"].item(), rel=1e-4)


def test_region_masks(unit):
    cams = unit["mask.cam"]
    maps, masks = region_masks(cams, cams.shape[2:])
    torch.testing.assert_close(maps, cams)
    assert torch.equal(masks, unit["mask.out"].bool())


def test_infonce(unit):
    region, own, others = unit["nce.anchor"], unit["nce.own"], unit["nce.others"]
    got = foreground_loss(region, own, others, unit["nce.queue"])
    assert got.item() == pytest.approx(unit["nce.fg"].item(), rel=1e-4)
    alone = foreground_loss(region, own, others, unit["nce.queue"][:0])
    assert alone.item() == pytest.approx(unit["nce.fg_noqueue"].item(), rel=1e-4)
    assert background_loss(region, own, others).item() == pytest.approx(
        unit["nce.bg"].item(), rel=1e-4
    )


def test_memory_bank(unit):
    bank = MemoryBank(*unit["bank.init"].shape)
    bank.queue = unit["bank.init"].clone()
    for number in range(5):
        bank.push(unit[f"bank.push{number}.in"])
        torch.testing.assert_close(bank.queue, unit[f"bank.push{number}.queue"])
        assert bank.pointer == unit[f"bank.push{number}.ptr"].item()


def test_metrics(unit):
    truth, found = (unit[f"metric.{name}"].numpy().copy() for name in ("gt", "pred"))
    counted = truth != 255  # the reference ignores 255 and calls background 4
    truth[truth == 4] = 255
    found[found == 4] = 255
    confusion = confusion_matrix(truth[counted], found[counted], 4)
    assert (confusion == unit["metric.confusion"].numpy()).all()
    scores = score(confusion)
    np.testing.assert_allclose(scores.iou, unit["metric.iou"][:4], rtol=1e-4)
    np.testing.assert_allclose(scores.dice, unit["metric.dice"][:4], rtol=1e-4)
    np.testing.assert_allclose([scores.miou, scores.mdice], unit["metric.miou_mdice"], rtol=1e-4)
    assert scores.fwiou == pytest.approx(unit["metric.fwiou"].item(), rel=1e-4)


def test_learning_rate(unit):
    got = [2e-5 * poly_rate(step, 10) for step in range(10)]
    np.testing.assert_allclose(got, unit["lr.poly"][:10], rtol=1e-4)


def test_learning_rate_stays_after_the_last_step_and_rises_first(unit):
    tail = [2e-5 * poly_rate(step, 10) for step in range(10, 13)]
    np.testing.assert_allclose(tail, unit["lr.poly"][10:], rtol=1e-4)
    warm = [2e-5 * poly_rate(step, 12, warmup=4, power=0.9) for step in range(15)]
    np.testing.assert_allclose(warm, LR_WARM, rtol=1e-4, atol=1e-12)
