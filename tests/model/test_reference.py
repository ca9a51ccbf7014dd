"""Losses, metrics and schedule against numbers that the released ConStruct code gave."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.model.golden import array, asserts, check
from wsiseg.annotations import BACKGROUND
from wsiseg.evaluate import confusion_matrix, score
from wsiseg.evaluate.scores import measure
from wsiseg.model.losses import (
    MemoryBank,
    background_loss,
    foreground_loss,
    region_masks,
    relational_loss,
)
from wsiseg.train.step import poly_rate


def given(name: str) -> Tensor:
    return torch.from_numpy(array(f"unit/{name}"))


@asserts("unit/struct.*.loss")
@pytest.mark.parametrize("case", [f"unit/struct.{kind}" for kind in ("same", "up", "down", "big")])
def test_relational_loss(case):
    student, teacher = (torch.from_numpy(array(f"{case}.{who}")) for who in ("student", "teacher"))
    check(f"{case}.loss", relational_loss(student, teacher))


@asserts("unit/mask.out")
def test_region_masks():
    cams = given("mask.cam")
    maps, masks = region_masks(cams, cams.shape[2:])
    torch.testing.assert_close(maps, cams)
    check("unit/mask.out", masks)


@asserts("unit/nce.fg", "unit/nce.fg_noqueue", "unit/nce.bg")
def test_infonce():
    region, own, others, queue = map(given, ("nce.anchor", "nce.own", "nce.others", "nce.queue"))
    check("unit/nce.fg", foreground_loss(region, own, others, queue))
    check("unit/nce.fg_noqueue", foreground_loss(region, own, others, queue[:0]))
    check("unit/nce.bg", background_loss(region, own, others))


@asserts("unit/bank.push*.queue", "unit/bank.push*.ptr")
def test_memory_bank():
    bank = MemoryBank(*given("bank.init").shape)
    bank.queue = given("bank.init")
    for number in range(5):
        bank.push(given(f"bank.push{number}.in"))
        check(f"unit/bank.push{number}.queue", bank.queue)
        check(f"unit/bank.push{number}.ptr", bank.pointer)


def renumber(labels: np.ndarray) -> np.ndarray:
    """The released code calls background 4."""
    return np.where(labels == 4, BACKGROUND, labels).astype(np.uint8)


@asserts("unit/metric.confusion", "unit/metric.acc*", "unit/metric.iou", "unit/metric.dice",
         "unit/metric.fwiou", "unit/metric.miou_mdice")  # fmt: skip
def test_metrics():
    truth, found = array("unit/metric.gt"), array("unit/metric.pred")
    counted = truth != 255  # the released code leaves these out
    confusion = confusion_matrix(renumber(truth)[counted], renumber(found)[counted], 4)
    check("unit/metric.confusion", confusion)
    right, true = np.diag(confusion), confusion.sum(1)
    check("unit/metric.acc", right / true)
    check("unit/metric.acc_global", right.sum() / true.sum())
    scores, (iou, dice, fwiou) = score(confusion), measure(confusion)
    check("unit/metric.iou", iou)
    check("unit/metric.dice", dice)
    check("unit/metric.fwiou", fwiou)
    check("unit/metric.miou_mdice", np.array([scores.miou, scores.mdice]))
    assert scores.iou == tuple(iou[:4])


@asserts("unit/metric.absent.iou")
def test_a_class_that_is_nowhere_has_no_iou():
    """The same labels with 1 for 2: the released code's mean is then not a number."""
    truth, found = array("unit/metric.gt"), array("unit/metric.pred")
    truth[truth == 2], found[found == 2] = 1, 1
    counted = truth != 255
    confusion = confusion_matrix(renumber(truth)[counted], renumber(found)[counted], 4)
    check("unit/metric.absent.iou", measure(confusion)[0])
    assert score(confusion).absent == (2,)
    assert np.isfinite(score(confusion).miou)


@asserts("unit/lr.*")
def test_learning_rate():
    """A line that stays after the last step; and one that rises first, then bends."""
    check("unit/lr.poly", np.array([2e-5 * poly_rate(step, 10) for step in range(13)]))
    warm = [2e-5 * poly_rate(step, 12, warmup=4, power=0.9) for step in range(15)]
    check("unit/lr.warm", np.array(warm))
