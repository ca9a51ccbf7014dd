import json

import numpy as np
import pytest
from PIL import Image

SIDE, COUNT = 64, 6
NUMBERS = {"Pink": 0, "Blue": 1, "background": 2}
COLORS = ((235, 150, 190), (110, 90, 170), (245, 245, 245))


def draw(number):
    """A patch of two halves, and which of the three each is."""
    rng = np.random.default_rng(number)
    labels = np.zeros((SIDE, SIDE), np.uint8)
    first, second = rng.permutation(3)[:2]
    labels[:], labels[:, int(rng.integers(16, 48)) :] = first, second
    pixels = np.array(COLORS)[labels] + rng.normal(0, 6, (SIDE, SIDE, 3))
    return pixels.clip(0, 255).astype(np.uint8), labels


def write_set(folder):
    """Patches of three cases, and their masks as `wsiseg masks` writes them."""
    for name in ("img", "mask", "confidence"):
        (folder / name).mkdir(parents=True)
    for number in range(COUNT):
        pixels, labels = draw(number)
        name = f"case{number // 2} [x={number},y=0,w=64,h=64].png"
        Image.fromarray(pixels).save(folder / "img" / name)
        Image.fromarray(labels).save(folder / "mask" / name)
        sure = np.full(labels.shape, 230, np.uint8)
        sure[:8] = 40  # of the first rows it is unsure
        Image.fromarray(sure).save(folder / "confidence" / name)
    about = {
        "numbers": NUMBERS, "colors": {"Pink": COLORS[0], "Blue": COLORS[1]},
        "checkpoint": {"sha256": "ab" * 32, "encoder": "tiny-1", "mpp": 0.5},
        "gate_means": "every class let through", "settings": {"tta": 6, "refine": True},
    }  # fmt: skip
    (folder / "masks.json").write_text(json.dumps(about))
    return folder


@pytest.fixture(scope="session")
def masked(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("masked"))
