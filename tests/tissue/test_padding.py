"""Black that no pen drew takes nothing of the tissue beside it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from tests.tissue.scenes import Scene
from wsiseg.config import TissueConfig
from wsiseg.tissue import detect_tissue

CONFIG = TissueConfig()
FACTOR = 4


def tissue_scene() -> Scene:
    """Tissue of 1,000 x 1,000 µm that goes on beyond x = 400 px, to be cut there."""
    scene = Scene()
    square = np.zeros_like(scene.truth)
    square[50:550, 150:650] = True
    scene.stain(square, 0.6, 0.3)
    return scene


def fill(scene: Scene, where: NDArray[np.bool_], value: float, grain: float = 0.0) -> None:
    noise = scene.rng.normal(0, grain, (*where.shape, 1)) if grain else 0.0
    scene.image = np.where(where[..., None], value + noise, scene.image)
    scene.truth &= ~where


def kept(scene: Scene, **sensor: object) -> tuple[float, float]:
    """Shares of the tissue that was found, and of what was found that is tissue."""
    mask = detect_tissue(scene.slide(**sensor), CONFIG)  # type: ignore[arg-type]
    truth = scene.coarse_truth(FACTOR)
    both = (mask & truth).sum()
    return float(both / truth.sum()), float(both / max(1, mask.sum()))


@pytest.mark.parametrize(
    ("value", "grain", "sensor"),
    [
        (0, 0, {"noise": 0, "quality": None}),
        (0, 0, {"noise": 2, "quality": 80}),
        (14, 4, {"noise": 2, "quality": 80}),
        (40, 0, {"noise": 0, "quality": None}),
    ],
)
@pytest.mark.parametrize("shape", ["half", "frame", "slanting", "offset"])
def test_tissue_beside_padding_is_kept(
    value: float, grain: float, sensor: dict[str, object], shape: str
) -> None:
    scene = tissue_scene()
    where = {
        "half": scene.cols >= 400,
        "frame": (scene.rows < 60) | (scene.rows >= 540) | (scene.cols < 160) | (scene.cols >= 640),
        "slanting": scene.cols + 0.6 * scene.rows >= 600,
        "offset": scene.cols >= 401.5,  # an edge within a pixel of the mask
    }[shape]
    fill(scene, where, value, grain)
    found, right = kept(scene, **sensor)
    assert found > 0.985
    assert right > 0.985


@pytest.mark.parametrize("width", [4, 7, 12, 20])
def test_black_lines_between_strips_take_nothing(width: int) -> None:
    """Gaps of 8 to 40 µm where strips were joined, right across the slide."""
    scene = tissue_scene()
    gap = (scene.cols >= 300) & (scene.cols < 300 + width)
    gap |= (scene.rows >= 240) & (scene.rows < 240 + width)
    fill(scene, gap, 0)
    mask = detect_tissue(scene.slide(noise=0), CONFIG)
    away = scene.truth & ~ndimage.binary_dilation(gap, iterations=3)
    assert mask[away[1::4, 1::4]].mean() > 0.99


def test_padding_alone_is_no_tissue() -> None:
    for value in (0, 40):
        scene = Scene()
        fill(scene, scene.cols >= 400, value)
        assert not detect_tissue(scene.slide(), CONFIG).any()
    scene = Scene()
    fill(scene, np.ones_like(scene.truth), 0)
    assert not detect_tissue(scene.slide(), CONFIG).any()


@pytest.mark.parametrize("color", [(35, 33, 38), (5, 5, 5)])
@pytest.mark.parametrize("opacity", [0.75, 1.0])
@pytest.mark.parametrize("wide", [30, 90])
def test_black_pen_is_still_pen_beside_padding(
    color: tuple[int, int, int], opacity: float, wide: float
) -> None:
    scene = tissue_scene()
    mark = scene.stroke(50, 20, 70, 580, wide)
    scene.ink(mark, color, opacity)
    fill(scene, scene.cols >= 400, 0)
    mask = detect_tissue(scene.slide(), CONFIG)
    ringed = ndimage.binary_dilation(mark, iterations=15)
    assert not mask[ringed[1::4, 1::4]].any()
    away = scene.truth & ~ndimage.binary_dilation(mark, iterations=35)
    assert mask[away[1::4, 1::4]].mean() > 0.99
