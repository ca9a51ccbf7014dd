"""Parts of the inference against the released code, where no encoder is needed."""

import numpy as np
import pytest
import torch

from tests.evaluate import golden
from tests.model import golden as encoders
from wsiseg.config import CrfConfig
from wsiseg.evaluate.protocols import truncate_image
from wsiseg.model.cam import class_probabilities, scale_maps
from wsiseg.model.crf import refine

BCSS = (0.66791496, 0.47791372, 0.70623304), (0.1736589, 0.22564577, 0.19820057)


def test_scaled_maps():
    cams, labels = (torch.from_numpy(golden.array(f"unit/seglabel.{n}")) for n in ("cam", "label"))
    golden.check("unit/seglabel.out", scale_maps(cams, (28, 28)) * labels[:, :, None, None])


def test_the_truncated_image_to_the_last_value():
    images = encoders.array("224/images")
    off = np.unpackbits(golden.array("224/crf_image.off"))[: images.size].reshape(images.shape)
    assert 0.38 < off.mean() < 0.39
    assert np.array_equal(truncate_image(images, *BCSS), images - off)


def test_background_and_probabilities():
    fused = torch.from_numpy(golden.array("224/fused"))  # every eighth pixel, as the others
    probabilities = class_probabilities(fused)
    for name, found in (("probs", probabilities), ("bg", (1 - fused.amax(1, keepdim=True)) ** 10)):
        wanted = golden.array(f"224/{name}")
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4, atol=1e-4)
    assert 0.1 < probabilities.min() <= probabilities.max() < 0.41


def crf_case() -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.from_numpy(golden.array("unit/crf.image")).permute(2, 0, 1)
    return torch.from_numpy(golden.array("unit/crf.probs"))[None], image[None].contiguous()


def test_the_crfs_lattice():
    config = CrfConfig(backend="numba", smooth_weight=0, appearance_weight=10)
    golden.check("unit/crf.bilateral_only.q", refine(*crf_case(), config)[0])


def test_the_crf():
    """Ours sums the smoothness kernel without the library's lattice error: few labels differ."""
    labels = refine(*crf_case(), CrfConfig(backend="numba"))[0].argmax(0).numpy()
    assert (labels != golden.array("unit/crf.labels")).mean() < 0.005


def test_the_crf_of_the_library():
    pytest.importorskip("pydensecrf", reason="needs pip install 'wsiseg[pydensecrf]'")
    q = refine(*crf_case(), CrfConfig(backend="pydensecrf"))[0]
    golden.check("unit/crf.q", q)
    golden.check("unit/crf.labels", q.argmax(0))
