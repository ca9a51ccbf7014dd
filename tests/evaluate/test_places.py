import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from tests.evaluate.golden import MINI_BCSS
from tests.evaluate.test_run import CONFIG, PALETTE
from wsiseg.cases import Place
from wsiseg.context import weigh_context
from wsiseg.errors import DataError
from wsiseg.evaluate import evaluate_model, load_masked_patches
from wsiseg.evaluate.places import find_pitch, weigh_by_slide
from wsiseg.model.trained import load_trained

SLIDE = CONFIG.model_copy(update={"protocols": ("deploy", "slide")})


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    """The golden patches as a row on one slide; the last lies on another."""
    folder = tmp_path_factory.mktemp("slide")
    images = sorted((MINI_BCSS / "test" / "img").iterdir())
    for kind in ("img", "mask"):
        (folder / kind).mkdir()
        for number, image in enumerate(images):
            slide = "two" if image == images[-1] else "one"
            source = next((MINI_BCSS / "test" / kind).glob(f"{image.stem.split('[')[0]}*"))
            shutil.copy(source, folder / kind / f"{slide}_x{448 * number}_y0{source.suffix}")
    return load_masked_patches(folder, PALETTE.names)


def test_places_come_from_names(patches):
    assert patches.places[0] == Place("one", 0, 0)
    assert patches.places[-1] == Place("two", 448 * (len(patches) - 1), 0)
    assert find_pitch(patches.places) == 448


def test_classes_enter_slide_by_slide(patches):
    logits = np.random.default_rng(0).normal(0, 1.5, (len(patches), 4))
    weights = weigh_by_slide(logits, patches, SLIDE)
    places = np.array([[number, 0.0] for number in range(len(patches))])
    for part in (slice(0, -1), slice(-1, None)):
        wanted = weigh_context(logits[part], places[part], SLIDE.context).weights
        np.testing.assert_allclose(weights[part], wanted, rtol=1e-6)
    wide = SLIDE.model_copy(update={"pitch": 100.0})  # now all are far apart
    alone = SLIDE.context.model_copy(update={"neighbours": 0.0, "low": SLIDE.context.high})
    apart = SLIDE.model_copy(update={"context": alone})
    np.testing.assert_array_equal(
        weigh_by_slide(logits, patches, wide), weigh_by_slide(logits, patches, apart)
    )


def test_a_patch_without_a_place_stands_alone(patches):
    logits = np.zeros((len(patches), 4))
    nowhere = replace(patches, places=(*patches.places[:-1], None))
    assert (weigh_by_slide(logits, nowhere, SLIDE) == 1).all()


def test_evaluate_has_the_protocol_and_threads_change_nothing(patches):
    source, steps = load_trained("tiny"), []
    found = evaluate_model(source, patches, SLIDE, progress=lambda *at: steps.append(at))
    assert [one.protocol for one in found] == ["deploy", "slide"]
    assert ("context", len(patches), len(patches)) in steps
    with ThreadPoolExecutor(2) as pool:
        again = evaluate_model(source, patches, SLIDE, executor=pool)
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one.confusions, other.confusions)
    classes = found[1].confusions.sum(1)[:, :-1] > 0
    assert not (classes & ~found[1].gates).any()  # nothing shows that was not let through


def test_unknown_places_are_refused(patches):
    nowhere = replace(patches, places=(None,) * len(patches))
    with pytest.raises(DataError, match=r"protocol slide needs the positions of patches"):
        evaluate_model(load_trained("tiny"), nowhere, SLIDE)
