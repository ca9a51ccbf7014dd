"""Masks that an editor gave another order of colours."""

import shutil

import numpy as np
import pytest
from PIL import Image

from tests.evaluate.golden import MINI_BCSS
from wsiseg.annotations import PALETTES
from wsiseg.config import EvaluateConfig
from wsiseg.errors import DataError
from wsiseg.evaluate import evaluate_predictions, load_masked_patches
from wsiseg.evaluate.mask_colors import find_renumbered

BCSS = PALETTES["bcss"]
RENUMBERED = r"1 problem(?s:.*){}: shows \d in the colour .* in most masks is that of \d; an editor"


def renumber(path):
    """The same colours with other numbers, as by an editor that saves what it shows."""
    with Image.open(path) as mask:
        before, numbers = mask.convert("RGB"), set(np.unique(mask))
        after = before.quantize(8)
    after.save(path)
    assert after.convert("RGB").tobytes() == before.tobytes()
    assert numbers != set(np.unique(after))


def test_a_true_mask_that_was_renumbered_is_refused(tmp_path):
    data = shutil.copytree(MINI_BCSS, tmp_path / "data")
    mask = min((data / "test" / "mask").iterdir())
    renumber(mask)
    with pytest.raises(DataError, match=RENUMBERED.format(f"mask/{mask.name}")):
        load_masked_patches(data, BCSS.names)


def test_a_prediction_that_was_renumbered_is_refused(tmp_path):
    folder = shutil.copytree(MINI_BCSS / "test" / "mask", tmp_path / "made")
    config = EvaluateConfig(resamples=1)
    evaluate_predictions(folder, MINI_BCSS, BCSS, "deploy", config)
    mask = min(folder.iterdir())
    renumber(mask)
    with pytest.raises(DataError, match=RENUMBERED.format(f"made/{mask.name}")):
        evaluate_predictions(folder, MINI_BCSS, BCSS, "deploy", config)


def test_other_colours_and_grey_say_nothing(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        mask = Image.new("P", (4, 4), 1)
        mask.putpalette([10 * number, 0, 0, 10 * number + 5, 0, 0])
        mask.save(path)
    Image.new("L", (4, 4), 2).save(paths[0])
    paths[1].write_bytes(b"no picture")
    assert find_renumbered(paths) == []
