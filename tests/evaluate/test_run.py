from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

from tests.evaluate.golden import MINI_BCSS
from tests.evaluate.test_patches import write
from tests.model.test_prompts import make_source
from tests.test_config import CONFIGS, fields
from wsiseg.annotations import BACKGROUND, PALETTES
from wsiseg.config import EvaluateConfig, parse_config
from wsiseg.errors import ConfigError, DataError
from wsiseg.evaluate import (
    confusion_matrix,
    evaluate_checkpoint,
    evaluate_model,
    load_masked_patches,
    score,
)
from wsiseg.evaluate.reliability import measure_reliability
from wsiseg.model.trained import TrainedModel, load_trained
from wsiseg.settings import describe_fields

PALETTE = PALETTES["bcss"]
CONFIG = EvaluateConfig(tta=1, device="cpu", batch_size=3, resamples=20)


@pytest.fixture(scope="module")
def source():
    return load_trained("tiny")


@pytest.fixture(scope="module")
def patches():
    return load_masked_patches(MINI_BCSS, PALETTE.names)


@pytest.fixture(scope="module")
def found(source, patches):
    seen, steps = [], []
    evaluations = evaluate_model(
        source, patches, CONFIG, visit=seen.append,
        progress=lambda step, done, total: steps.append((step, done, total)),
    )  # fmt: skip
    return evaluations, seen, steps


def test_protocols_are_kept_apart(found):
    oracle, deploy = found[0]
    assert (oracle.protocol, deploy.protocol) == ("oracle", "deploy")
    assert (oracle.gates == oracle.true_classes).all()
    assert (deploy.true_classes == oracle.true_classes).all()
    assert (deploy.gates != oracle.gates).any()
    assert oracle.scores.miou > deploy.scores.miou, "being told the classes helps"


def test_confidence_is_the_softmax_of_the_pixels_cams(found, source, patches):
    sure, right = [], []
    for number in range(len(patches)):
        images, truth = patches.read([number])
        batch = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
        with torch.inference_mode():
            cams = source.cams(batch)
        fields = F.interpolate(cams, truth.shape[1:], mode="bilinear")
        best, label = fields.double().softmax(1).max(1)
        inside = truth != BACKGROUND
        sure.append(best.numpy()[inside])
        right.append((label.numpy() == truth)[inside])
    plain = measure_reliability(np.concatenate(sure), np.concatenate(right))
    for evaluation in found[0]:
        assert evaluation.reliability.counts.sum() == plain.counts.sum()
        assert evaluation.reliability.ece == pytest.approx(plain.ece, abs=1e-4)


def test_scores_are_those_of_all_pixels(found, patches):
    evaluations, seen, steps = found
    assert steps == [("evaluate", 3, 4), ("evaluate", 4, 4)]
    assert len(seen) == 8
    for evaluation in evaluations:
        mine = sorted(
            (s for s in seen if s.protocol == evaluation.protocol), key=lambda s: s.number
        )
        assert [s.name for s in mine] == list(evaluation.names)
        truth, labels = (np.stack([getattr(s, n) for s in mine]) for n in ("truth", "labels"))
        whole = confusion_matrix(truth, labels, 4)
        assert (evaluation.confusion == whole).all()
        assert evaluation.scores == score(whole)
        low, high = evaluation.intervals.fwiou
        assert low < evaluation.scores.fwiou < high
        assert (truth == patches.read(range(4))[1]).all()


def test_neither_batches_nor_threads_show(source, patches, found):
    with ThreadPoolExecutor(2) as pool:
        others = evaluate_model(
            source, patches, CONFIG.model_copy(update={"batch_size": 1}), executor=pool
        )
    for one, other in zip(found[0], others, strict=True):
        assert (one.confusions == other.confusions).all()
        assert (one.gates == other.gates).all()


def test_a_model_in_training_is_scored_as_it_will_be_used(source, patches, found):
    source.model.train()
    config = CONFIG.model_copy(update={"protocols": ("deploy", "deploy")})
    (again,) = evaluate_model(source, patches, config)
    assert source.model.training
    source.model.eval()
    assert (again.confusions == found[0][1].confusions).all()


def test_the_settings_are_described_and_written_out():
    for owner, name, _ in fields(EvaluateConfig):
        assert describe_fields(owner).get(name), f"EvaluateConfig.{name} has no docstring"
    raw = yaml.safe_load((CONFIGS / "evaluate.yaml").read_text())
    assert raw == EvaluateConfig().model_dump(mode="json")
    with pytest.raises(ConfigError, match="protocols"):
        parse_config({"protocols": []}, EvaluateConfig, "a test")


def test_what_does_not_fit_is_refused(source, patches, tmp_path):
    info = replace(source.info, names=PALETTE.names[:3], colors=PALETTE.colors[:3])
    with pytest.raises(DataError, match="the masks have 4 classes, the model has 3; they"):
        evaluate_model(TrainedModel(source.model, info), patches, CONFIG)
    write(tmp_path, "a.png", image=(48, 40), mask=(48, 40))
    odd = load_masked_patches(tmp_path, PALETTE.names)
    with pytest.raises(
        DataError, match="patches are 48 x 40 px; the encoder needs multiples of 32"
    ):
        evaluate_model(source, odd, CONFIG)
    write(tmp_path / "one", "a.png", image=(32, 32), mask=(32, 32))
    single = make_source(palette=PALETTE)
    with pytest.raises(DataError, match="gives one cell per patch of 32 x 32 px, and evaluation"):
        evaluate_model(single, load_masked_patches(tmp_path / "one", PALETTE.names), CONFIG)
    with pytest.raises(ConfigError, match="device 'abacus' is unknown"):
        evaluate_checkpoint("tiny", MINI_BCSS, CONFIG.model_copy(update={"device": "abacus"}))
