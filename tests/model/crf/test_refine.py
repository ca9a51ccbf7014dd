"""What every back end of `refine` promises, checked on each of those that run here."""

from __future__ import annotations

from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import wsiseg.model.crf as crf
from tests.model.crf.cases import NAMES, make_case, saved_case
from tests.model.crf.dense import refine_dense
from wsiseg.config import CrfConfig
from wsiseg.errors import ConfigError, DataError, GeometryError, MissingDependencyError
from wsiseg.model.crf import choose_backend, refine
from wsiseg.model.crf.window import BLOCK, smooth_radius, window_radius

EXACT = CrfConfig(backend="torch", mode="exact")
FAST = CrfConfig(backend="torch", mode="fast")
NUMBA = CrfConfig(backend="numba")
SMALL = {"smooth_sxy": 3.0, "appearance_sxy": 3.0}
every_backend = pytest.mark.parametrize(
    "config", [EXACT, FAST, NUMBA], ids=["torch-exact", "torch-fast", "numba"]
)
shapes = st.tuples(
    st.integers(1, 2),
    st.integers(1, 11),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 99),
)


def random_input(
    batch: int, classes: int, height: int, width: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(batch, classes, height, width, generator=random)
    image = torch.randint(0, 256, (batch, 3, height, width), generator=random)
    return probabilities, image.to(torch.uint8)


def changed(config: CrfConfig, **settings: object) -> CrfConfig:
    return config.model_copy(update=settings)


def disagreement(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.argmax(1) != b.argmax(1)).float().mean())


# Agreement with the exact sum


@pytest.mark.parametrize(
    ("config", "least", "mean", "difference"),
    [(EXACT, 0.995, 0.998, 0.002), (FAST, 0.983, 0.992, 0.004), (NUMBA, 0.980, 0.989, 0.006)],
    ids=["torch-exact", "torch-fast", "numba"],
)
def test_agrees_with_the_saved_exact_results(config, least, mean, difference):
    # Torch takes seconds a tile on a CPU: the hardest stand for the five, which the benchmark runs.
    names = {"exact": NAMES[-1:], "fast": NAMES[2::2]}[config.mode]
    names = NAMES if config is NUMBA else names
    agreement, difference_found = [], []
    for name in names:
        case = saved_case(name)
        q = refine(case.probabilities, case.image, config)[0].numpy()
        agreement.append(float((q.argmax(0) == case.labels).mean()))
        difference_found.append(float(np.abs(q - case.q.astype(np.float32)).mean()))
    assert min(agreement) >= least
    assert np.mean(agreement) >= (mean if config is NUMBA else least)
    assert np.mean(difference_found) <= difference


@pytest.mark.parametrize(
    ("config", "difference"),
    [(EXACT, 5e-4), (FAST, 8e-3), (NUMBA, 8e-3)],
    ids=["torch-exact", "torch-fast", "numba"],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_agrees_with_dense_matrices_at_other_settings(config, difference, seed):
    probabilities, image = make_case(43, 46, 3 + seed, seed)
    config = changed(
        config,
        smooth_sxy=4.0,
        smooth_weight=6.0,
        appearance_sxy=5.0,
        appearance_srgb=30.0,
        appearance_weight=12.0,
        iterations=3,
    )
    q = refine(probabilities, image, config)
    truth = refine_dense(probabilities, image, config)
    assert float((q - truth).abs().mean()) <= difference
    assert disagreement(q, truth) <= 0.015


# Properties


@every_backend
@settings(max_examples=10, deadline=None)
@given(shape=shapes)
def test_q_is_a_distribution_for_any_shape(config, shape):
    probabilities, image = random_input(*shape)
    q = refine(probabilities, image, changed(config, **SMALL))
    assert q.shape == probabilities.shape
    assert q.dtype == torch.float32
    assert float(q.min()) >= 0
    assert float(q.max()) <= 1 + 1e-6
    assert torch.allclose(q.sum(1), torch.ones(()), atol=1e-5)


@every_backend
@settings(max_examples=8, deadline=None)
@given(shape=shapes, data=st.data())
def test_permuting_classes_permutes_q(config, shape, data):
    probabilities, image = random_input(*shape)
    order = data.draw(st.permutations(range(shape[1])))
    # Weak and few enough that rounding, which the order changes, does not grow.
    config = changed(config, **SMALL, smooth_weight=3.0, appearance_weight=5.0, iterations=2)
    q = refine(probabilities, image, config)
    assert torch.allclose(refine(probabilities[:, order], image, config), q[:, order], atol=1e-4)


@every_backend
def test_a_batch_equals_its_members(config, monkeypatch):
    cases = [make_case(40, 56, 5, seed) for seed in range(3)]
    probabilities = torch.cat([case[0] for case in cases])
    image = torch.cat([case[1] for case in cases])
    config = changed(config, **SMALL)
    whole = refine(probabilities, image, config)
    for i, one in enumerate(cases):
        assert torch.equal(refine(*one, config)[0], whole[i])
    monkeypatch.setattr(crf, "_BATCH_BYTES", 1)  # one image at a time
    assert torch.equal(refine(probabilities, image, config), whole)


@every_backend
def test_without_pairwise_weights_q_is_the_softmax_of_the_unary(config):
    probabilities, image = random_input(1, 5, 24, 24, 0)
    probabilities[0, 0, :3] = 0.0
    probabilities[0, 1, 3:5] = 2.0
    clipped = probabilities.clamp(1e-5, 1)
    expected = clipped / clipped.sum(1, keepdim=True)
    without = changed(config, smooth_weight=0.0, appearance_weight=0.0)
    assert torch.allclose(refine(probabilities, image, without), expected, atol=1e-6)
    assert torch.allclose(
        refine(probabilities, image, changed(config, iterations=0)), expected, atol=1e-6
    )


@every_backend
def test_a_constant_stays_constant_away_from_borders(config):
    probabilities = torch.tensor([0.5, 0.3, 0.2]).reshape(1, 3, 1, 1).expand(1, 3, 96, 96)
    image = torch.full((1, 3, 96, 96), 130, dtype=torch.uint8)
    config = changed(config, **SMALL, smooth_weight=2.0, appearance_weight=2.0, iterations=3)
    inner = refine(probabilities, image, config)[..., 32:-32, 32:-32]
    spread = inner.amax((2, 3)) - inner.amin((2, 3))
    # Windows of blocks, thinned keys and lattice cells see a constant a little unevenly; a border
    # would show as 0.1.
    assert float(spread.max()) <= (5e-4 if config.mode == "exact" else 0.02)


def reach_of(config: CrfConfig) -> int:
    """Pixels after which the windowed back ends no longer see a change of the input.

    A block read with this margin (and cut at multiples of `BLOCK`) gives the whole image's result
    up to rounding: each iteration reaches one window further, and the norms one more.
    """
    appearance = (window_radius(config.appearance_sxy) + 1) * BLOCK - 1
    reach = max(appearance, smooth_radius(config.smooth_sxy))
    return (config.iterations + 1) * reach if config.iterations else 0


@pytest.mark.parametrize("config", [EXACT, FAST], ids=["exact", "fast"])
def test_a_block_with_a_margin_beyond_the_reach_equals_the_whole(config):
    probabilities, image = make_case(136, 144, 4, 3)
    config = changed(config, smooth_sxy=2.0, appearance_sxy=3.0, iterations=2)
    margin = -(-reach_of(config) // 8) * 8
    assert margin == 48
    whole = refine(probabilities, image, config)[..., 56:80, 48:96]
    rows, columns = slice(56 - margin, 80 + margin), slice(0, 96 + margin)
    part = refine(probabilities[..., rows, columns], image[..., rows, columns], config)
    assert torch.allclose(part[..., margin:-margin, 48:-margin], whole, atol=1e-5)


@pytest.mark.parametrize("config", [FAST, NUMBA], ids=["torch-fast", "numba"])
def test_a_block_with_the_default_margin_agrees(config):
    probabilities, image = make_case(208, 128, 4, 5, cell=20)
    whole = refine(probabilities, image, config)[..., 128:, :]
    part = refine(probabilities[..., 64:, :], image[..., 64:, :], config, corner=(0, 64))
    assert disagreement(part[..., 64:, :], whole) <= 0.002


# What comes in


def test_empty_batches_and_other_floats_are_fine():
    probabilities, image = random_input(2, 3, 16, 16, 0)
    assert refine(probabilities[:0], image[:0], NUMBA).shape == (0, 3, 16, 16)
    double = refine(probabilities.double(), image, NUMBA)
    assert torch.equal(double, refine(probabilities, image, NUMBA))
    turned = refine(probabilities.transpose(2, 3), image.transpose(2, 3), NUMBA)
    assert turned.is_contiguous()


def test_gradients_are_not_kept():
    probabilities, image = random_input(1, 3, 16, 16, 0)
    assert not refine(probabilities.requires_grad_(), image, NUMBA).requires_grad


@pytest.mark.parametrize(
    ("probabilities", "image", "error", "message"),
    [
        ((3, 8, 8), (1, 3, 8, 8), GeometryError, r"shape \(3, 8, 8\); \(B, C, H, W\)"),
        ((1, 0, 8, 8), (1, 3, 8, 8), GeometryError, "with C > 0"),
        ((1, 2, 8, 8), (1, 3, 8, 9), GeometryError, r"need \(1, 3, 8, 8\)"),
        ((1, 2, 8, 8), (1, 8, 8, 3), GeometryError, r"\(1, 8, 8, 3\)"),
    ],
)
def test_wrong_shapes_are_named(probabilities, image, error, message):
    with pytest.raises(error, match=message):
        refine(torch.zeros(probabilities), torch.zeros(image, dtype=torch.uint8), NUMBA)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_probability_that_is_no_number_is_located(value):
    probabilities, image = random_input(2, 3, 16, 16, 0)
    probabilities[1, 2, 5, 7] = value
    with pytest.raises(DataError, match=rf"probabilities\[1, 2, 5, 7\] is {value}"):
        refine(probabilities, image, NUMBA)


def test_wrong_dtypes_are_named():
    probabilities, image = random_input(1, 3, 16, 16, 0)
    with pytest.raises(DataError, match=r"probabilities are torch\.int64; a floating"):
        refine(probabilities.long(), image, NUMBA)
    with pytest.raises(DataError, match=r"image is torch\.float32; torch\.uint8"):
        refine(probabilities, image.float(), NUMBA)


def test_different_devices_are_named():
    probabilities, image = random_input(1, 3, 16, 16, 0)
    with pytest.raises(DataError, match="image is on meta, probabilities on cpu"):
        refine(probabilities, image.to("meta"), NUMBA)


# Back ends


def test_a_cpu_takes_numba():
    assert choose_backend(CrfConfig(), torch.zeros(1, 2, 8, 8)) == "numba"
    assert choose_backend(EXACT, torch.zeros(1, 2, 8, 8)) == "torch"


@pytest.mark.parametrize(("compiler", "backend"), [("/usr/bin/gcc", "triton"), (None, "torch")])
def test_a_gpu_takes_triton_where_that_can_compile(monkeypatch, compiler, backend):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(crf, "find_spec", lambda name: name == "triton")
    monkeypatch.setattr(crf, "sys", SimpleNamespace(platform="linux"))
    monkeypatch.setattr(crf.shutil, "which", lambda name: compiler)
    monkeypatch.delenv("CC", raising=False)
    probabilities = SimpleNamespace(is_cuda=True, device="cuda:0", shape=(1, 2, 8, 8))
    assert choose_backend(CrfConfig(), probabilities) == backend


@pytest.mark.skipif(find_spec("pydensecrf") is not None, reason="pydensecrf is installed")
def test_a_missing_backend_gives_the_install_line():
    probabilities, image = random_input(1, 3, 16, 16, 0)
    with pytest.raises(MissingDependencyError, match=r"pip install 'wsiseg\[pydensecrf\]'"):
        refine(probabilities, image, CrfConfig(backend="pydensecrf"))


@pytest.mark.skipif(find_spec("pydensecrf") is None, reason="pydensecrf is not installed")
def test_pydensecrf_gives_its_saved_labels():
    case = saved_case("p5_nonsquare_weak")
    q = refine(case.probabilities, case.image, CrfConfig(backend="pydensecrf"))[0].numpy()
    assert (q.argmax(0) == case.labels_pydensecrf).mean() >= 0.999


def test_numba_says_when_deviations_are_too_small():
    probabilities, image = random_input(1, 2, 64, 64, 0)
    config = CrfConfig(backend="numba", appearance_sxy=0.001, appearance_srgb=0.05)
    with pytest.raises(ConfigError, match=r"appearance_sxy = 0\.001 px .* use backend: torch"):
        refine(probabilities, image, config)
