from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsiseg.annotations import BACKGROUND
from wsiseg.demo import Truth, sample_patches
from wsiseg.errors import DataError
from wsiseg.slide import ArraySlide


def coded(truth: Truth) -> ArraySlide:
    """A slide whose red is the truth itself, so that a patch shows its own labels."""
    return ArraySlide(np.repeat(truth.labels[..., None], 3, axis=2), truth.mpp)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_labels_are_what_the_patch_shows(made: tuple[Path, Truth], tmp_path: Path) -> None:
    truth = made[1]
    path = sample_patches(coded(truth), truth, tmp_path / "p", count=40, seed=0)
    table = rows(path)
    assert len(table) == 40
    assert list(table[0]) == ["image", *truth.names]
    for row in table:
        seen = np.asarray(Image.open(path.parent / row["image"]))[..., 0]
        assert seen.shape == (224, 224)
        assert (seen != BACKGROUND).mean() >= 0.75
        for label, name in enumerate(truth.names):
            assert int(row[name]) == int((seen == label).sum() >= 0.05 * 224 * 224)
    for name in truth.names:
        assert sum(int(row[name]) for row in table) >= 10, "each class takes its turn"


def test_same_seed_same_patches(made: tuple[Path, Truth], tmp_path: Path) -> None:
    path, truth = made
    one, two, other = (
        sample_patches(path, truth, tmp_path / name, count=8, seed=seed)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    for row in rows(one):
        assert (one.parent / row["image"]).read_bytes() == (two.parent / row["image"]).read_bytes()
        assert Image.open(one.parent / row["image"]).mode == "RGB"
    assert one.read_bytes() == two.read_bytes()
    first = [(folder.parent / "0000.png").read_bytes() for folder in (one, other)]
    assert first[0] != first[1]


def test_missing_class_and_small_slide(tmp_path: Path) -> None:
    names = ("Tumor", "Stroma")
    only = Truth(np.zeros((300, 300), np.uint8), names, 0.5)
    with pytest.raises(DataError, match=r"Stroma covers 0 px .* make a larger slide"):
        sample_patches(coded(only), only, tmp_path, count=2, seed=0)
    small = Truth(np.zeros((100, 300), np.uint8), names, 0.5)
    with pytest.raises(DataError, match=r"300 x 100 px at 0.5 µm/px holds no patch; .* 224 px"):
        sample_patches(coded(small), small, tmp_path, count=1, seed=0)
