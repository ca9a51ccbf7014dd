import shutil

import numpy as np
from PIL import Image

from wsiseg.evaluate import MaskScore, load_masked_patches


def write_set(folder):
    for name, mode in (("img", "RGB"), ("mask", "L")):
        (folder / name).mkdir(parents=True)
        for number in range(2):
            Image.new(mode, (64, 64)).save(folder / name / f"{number}.png")
    return folder


def identify(folder):
    return MaskScore(load_masked_patches(folder, ("A", "B"))).identity


def test_masks_and_images_that_changed_in_place_are_others(tmp_path):
    folder = write_set(tmp_path / "set")
    before = identify(folder)
    assert identify(shutil.copytree(folder, tmp_path / "copy")) == before, "where they lie"
    Image.fromarray(np.eye(64, dtype=np.uint8)).save(folder / "mask" / "1.png")
    mended = identify(folder)
    Image.new("RGB", (64, 64), "white").save(folder / "img" / "0.png")
    assert len({before, mended, identify(folder)}) == 3
