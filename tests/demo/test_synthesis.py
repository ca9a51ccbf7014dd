from __future__ import annotations

from pathlib import Path

import numpy as np

from wsiseg.annotations import BACKGROUND
from wsiseg.demo import Truth, synthesize_slide
from wsiseg.geometry import Box
from wsiseg.slide import open_slide


def test_one_seed_one_file(tmp_path: Path) -> None:
    one, two, three = (tmp_path / f"{name}.svs" for name in "abc")
    truth = synthesize_slide(one, 1024, 700, seed=4)
    again = synthesize_slide(two, 1024, 700, seed=4)
    other = synthesize_slide(three, 1024, 700, seed=5)
    assert one.read_bytes() == two.read_bytes() != three.read_bytes()
    np.testing.assert_array_equal(truth.labels, again.labels)
    assert (truth.labels != other.labels).any()


def test_truth_lies_on_the_image(made: tuple[Path, Truth]) -> None:
    path, truth = made
    with open_slide(path) as slide:
        size = slide.raster_size(truth.mpp)
        assert truth.labels.shape == (size.height, size.width)
        pixels = slide.read(Box(0, 0, *size), truth.mpp)
    assert truth.names == ("Tumor", "Stroma", "Immune cells", "Necrosis")
    assert truth.mpp == 0.5
    assert set(np.unique(truth.labels)) == {0, 1, 2, 3, BACKGROUND}
    glass = truth.labels == BACKGROUND
    seen = pixels.min(axis=2) > 232
    # Gaps between fibres are white too; shifted by 10 px the truth would agree less.
    agree = (glass == seen).mean()
    assert agree > 0.95
    for shift in ((0, 10), (0, -10), (10, 0), (-10, 0)):
        assert (np.roll(glass, shift, (0, 1)) == seen).mean() < agree


def test_blank_glass(tmp_path: Path) -> None:
    path = tmp_path / "blank.svs"
    truth = synthesize_slide(path, 600, 500, seed=1, tissue=False)
    assert (truth.labels == BACKGROUND).all()
    with open_slide(path) as slide:
        pixels = slide.read(Box(0, 0, 600, 500), 0.25)
    assert pixels.min() > 225
    assert pixels.std() > 0.3
