"""Parts of the inference against the released code, where no encoder is needed."""

import numpy as np
import pytest
import torch

from tests.evaluate import golden
from wsiseg.config import CrfConfig
from wsiseg.evaluate.protocols import present, truncate_image
from wsiseg.model.cam import class_probabilities, scale_maps
from wsiseg.model.crf import refine

BCSS = (0.66791496, 0.47791372, 0.70623304), (0.1736589, 0.22564577, 0.19820057)


@golden.asserts("unit/seglabel.out")
def test_scaled_maps():
    cams, labels = (torch.from_numpy(golden.array(f"unit/seglabel.{n}")) for n in ("cam", "label"))
    golden.check("unit/seglabel.out", scale_maps(cams, (28, 28)) * labels[:, :, None, None])


@golden.asserts("224/labels", "448/labels")
@pytest.mark.parametrize("case", ["224", "448"])
def test_the_image_labels_are_the_classes_of_the_mask(case):
    golden.check(f"{case}/labels", present(golden.array(f"{case}/masks"), 4))


@golden.asserts("224/crf_image")
def test_the_truncated_image_to_the_last_value():
    images = golden.array("224/images")
    found = truncate_image(images, *BCSS)
    assert 0.38 < (images != found).mean() < 0.39
    assert np.array_equal(found, golden.array("224/crf_image"))  # the stated tolerance is 1
    golden.check("224/crf_image", found)


def test_background_and_probabilities():
    fused = torch.from_numpy(golden.array("224/fused"))  # every eighth pixel, as the others
    probabilities = class_probabilities(fused)
    for name, found in (("probs", probabilities), ("bg", (1 - fused.amax(1, keepdim=True)) ** 10)):
        wanted = golden.array(f"224/{name}")
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4, atol=1e-4)
    assert 0.1 < probabilities.min() <= probabilities.max() < 0.41


def crf_case(left_out: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities, without one class if asked, and image."""
    kept = [label for label in range(5) if label != left_out]
    image = torch.from_numpy(golden.array("unit/crf.image")).permute(2, 0, 1)
    return torch.from_numpy(golden.array("unit/crf.probs"))[None, kept], image[None].contiguous()


def put_back(q: torch.Tensor, label: int) -> torch.Tensor:
    """``(C, H, W)`` with a class between that has no share."""
    return torch.cat([q[:label], torch.zeros_like(q[:1]), q[label:]])


@golden.asserts("unit/crf.unary")
def test_the_unary():
    """No iterations leave the softmax of the probabilities' logarithms."""
    probabilities, image = crf_case()
    q = refine(probabilities, image, CrfConfig(backend="numba", iterations=0))
    golden.check("unit/crf.unary", -q[0].flatten(1).log())


@golden.asserts("unit/crf.bilateral_only.q")
def test_the_crfs_lattice():
    config = CrfConfig(backend="numba", smooth_weight=0, appearance_weight=10)
    golden.check("unit/crf.bilateral_only.q", refine(*crf_case(), config)[0])


def test_the_crf():
    """Ours sums the smoothness kernel without the library's lattice error: few labels differ."""
    labels = refine(*crf_case(), CrfConfig(backend="numba"))[0].argmax(0).numpy()
    assert (labels != golden.array("unit/crf.labels")).mean() < 0.005
    labels = put_back(refine(*crf_case(2), CrfConfig(backend="numba"))[0], 2).argmax(0).numpy()
    assert (labels != golden.array("unit/crf.zero_class2.labels")).mean() < 0.005


@golden.asserts("unit/crf.q", "unit/crf.labels", "unit/crf.zero_class2.*", "unit/crf.gauss_only.q",
                needs="pydensecrf")  # fmt: skip
def test_the_crf_of_the_library():
    pytest.importorskip("pydensecrf", reason="needs pip install 'wsiseg[pydensecrf]'")
    library = CrfConfig(backend="pydensecrf")
    q = refine(*crf_case(), library)[0]
    golden.check("unit/crf.q", q)
    golden.check("unit/crf.labels", q.argmax(0))
    without = put_back(refine(*crf_case(2), library)[0], 2)
    golden.check("unit/crf.zero_class2.q", without)
    golden.check("unit/crf.zero_class2.labels", without.argmax(0))
    alone = CrfConfig(backend="pydensecrf", smooth_sxy=3, smooth_weight=3, appearance_weight=0)
    golden.check("unit/crf.gauss_only.q", refine(*crf_case(), alone)[0])
