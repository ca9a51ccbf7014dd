import pytest
import torch
import torch.nn.functional as F

from wsiseg.errors import DataError
from wsiseg.model.calibration import fit_calibration, fit_temperature


def draw(count=20000, seed=0):
    """Logits whose softmax is the truth, and labels drawn from it."""
    torch.manual_seed(seed)
    true = torch.randn(count, 4) * 2 + torch.tensor([1.0, 0.0, 0.0, -1.0])
    labels = torch.distributions.Categorical(logits=true).sample()
    return true, labels


def test_what_made_the_labels_is_found_again():
    true, labels = draw()
    scale, offset = torch.tensor([0.5, 2.0, 1.0, 3.0]), torch.tensor([0.0, 1.0, -1.0, 0.5])
    found = fit_calibration((true - offset) / scale, labels)
    calibrated = (true - offset) / scale * found[:, 0] + found[:, 1]
    difference = calibrated.softmax(1) - true.softmax(1)
    assert difference.abs().mean() < 0.01


def test_a_model_that_is_right_stays_as_it_is():
    true, labels = draw()
    found = fit_calibration(true, labels)
    torch.testing.assert_close(found[:, 0], torch.ones(4), atol=0.08, rtol=0)
    torch.testing.assert_close(found[:, 1] - found[:, 1].mean(), torch.zeros(4), atol=0.1, rtol=0)


def test_weights_count_as_copies_would():
    true, labels = draw(500)
    weights = torch.randint(1, 4, (500,))
    copies = torch.arange(500).repeat_interleave(weights)
    one = fit_calibration(true * 2, labels, weights)
    other = fit_calibration((true * 2)[copies], labels[copies])
    torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_a_class_that_nothing_shows_keeps_the_common_scale():
    true, labels = draw(3000)
    kept = labels != 3
    found = fit_calibration(true[kept] * 4, labels[kept])
    assert found[3, 1] == 0
    assert found[3, 0] < 1


@pytest.mark.parametrize("logits", [torch.zeros(0, 3), torch.full((2, 3), float("nan"))])
def test_nothing_to_fit_is_said(logits):
    with pytest.raises(DataError, match=r"needs places with finite logits; got \d places"):
        fit_calibration(logits, torch.zeros(len(logits), dtype=torch.int64))


def test_one_scale_is_found_and_is_never_sure_of_everything():
    logits = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)) * 2
    labels = torch.distributions.Categorical(logits=logits).sample()
    assert fit_temperature(logits * 4, labels, 4000) == pytest.approx(0.25, rel=0.1)
    right = 5 * F.one_hot(torch.arange(30) % 3).float()
    scale = fit_temperature(right, torch.arange(30) % 3, 30)
    assert (right * scale).softmax(1).max(1).values == pytest.approx(1 - 2 / 3 / 31, abs=0.01)
