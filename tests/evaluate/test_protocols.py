"""What tells the protocols apart; the numbers are in test_golden_units and the encoders' tests."""

import numpy as np
import pytest
import torch

from tests.evaluate.golden import MINI_BCSS
from wsiseg.annotations import BACKGROUND
from wsiseg.config import EvaluateConfig
from wsiseg.evaluate import load_masked_patches
from wsiseg.evaluate.protocols import _weigh, label_maps, predict_maps, present
from wsiseg.model.cam import class_probabilities
from wsiseg.model.trained import load_trained

CONFIG = EvaluateConfig(tta=1, device="cpu")


@pytest.fixture(scope="module")
def case():
    source = load_trained("tiny")
    images, truth = load_masked_patches(MINI_BCSS, source.palette.names).read([0, 1])
    images, truth = images[:, :96, :96].copy(), truth[:, :96, :96].copy()
    return source, images, truth, predict_maps(source, images, CONFIG)


def test_oracle_never_finds_a_class_that_is_not_true(case):
    source, images, truth, found = case
    predicted = label_maps(found, images, truth, "oracle", source, CONFIG)
    assert torch.equal(predicted.gates, torch.from_numpy(present(truth, 4)))
    for label in range(4):
        for gate, labels in zip(predicted.gates[:, label], predicted.labels, strict=True):
            assert gate or label not in labels


def test_oracle_of_an_empty_mask_is_empty(case):
    source, images, truth, found = case
    predicted = label_maps(found, images, np.full_like(truth, BACKGROUND), "oracle", source, CONFIG)
    assert not predicted.gates.any()
    assert (predicted.labels == BACKGROUND).all()


def test_deploy_does_not_look_at_the_truth(case):
    source, images, truth, found = case
    first, second = (
        label_maps(found, images, t, "deploy", source, CONFIG)
        for t in (truth, np.full_like(truth, BACKGROUND))
    )
    assert (first.labels == second.labels).all()
    assert torch.equal(first.gates, torch.sigmoid(found.logits) >= CONFIG.gate_threshold)
    assert len(set(np.unique(first.labels))) > 1


def test_the_threshold_gates(case):
    source, images, truth, found = case
    strict = CONFIG.model_copy(update={"gate_threshold": 1 - 1e-9})
    assert not label_maps(found, images, truth, "deploy", source, strict).gates.any()


def test_an_encoder_with_a_spread_gets_the_truncated_image(case, monkeypatch):
    source, images, truth, found = case
    seen = []

    def spy(values, pixels, config):
        seen.append(pixels)
        return values.argmax(1)

    monkeypatch.setattr("wsiseg.evaluate.protocols.refine_labels", spy)
    monkeypatch.setattr(type(source.model.encoder), "std", (0.2, 0.2, 0.2), raising=False)
    for protocol in ("oracle", "deploy"):
        label_maps(found, images, truth, protocol, source, CONFIG)
    off = [torch.from_numpy(images).permute(0, 3, 1, 2).int() - pixels.int() for pixels in seen]
    assert set(off[0].unique().tolist()) == {0, 1}
    assert not off[1].any(), "deploy has no reason to cut"


def test_kinds_of_background_compete_and_end_as_background():
    maps = torch.rand(2, 5, 3, 3)  # three classes, two kinds of background
    gates = torch.tensor([[True, False, True], [False, False, False]])
    found = _weigh(maps, gates)
    gated = maps * torch.cat([gates, torch.ones(2, 2, dtype=torch.bool)], 1)[:, :, None, None]
    plain = class_probabilities(gated)
    assert torch.equal(found[:, :3], plain[:, :3])
    torch.testing.assert_close(found[:, 3], plain[:, 3] + plain[:, 4] + plain[:, 5])
    alone = _weigh(maps[:, :3], gates)
    assert torch.equal(alone, class_probabilities(maps[:, :3] * gates[:, :, None, None]))
