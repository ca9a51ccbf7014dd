from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openslide
import pytest
from scipy.ndimage import gaussian_filter

from wsiseg.compute import SerialExecutor
from wsiseg.config import SlideConfig
from wsiseg.demo.svs import TILE, write_svs
from wsiseg.geometry import Box, Size
from wsiseg.slide import open_slide

SIZE = Size(1333, 1100)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal((SIZE.height, SIZE.width, 1))
    smooth = gaussian_filter(noise, (25, 25, 0))
    tint = np.array([30, 40, 20])  # one hue, as of one stain: 4:2:0 would blur unlike ones
    return np.clip(180 + tint * smooth / smooth.std(), 0, 255).astype(np.uint8)


def write(path: Path, image: np.ndarray, executor=None) -> Path:
    strips = (image[y : y + TILE] for y in range(0, len(image), TILE))
    write_svs(path, SIZE, strips, 0.25, executor or SerialExecutor())
    return path


@pytest.fixture(scope="module")
def svs(image: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("svs") / "a.svs", image)


def test_openslide_takes_it_for_aperio(svs: Path) -> None:
    with openslide.OpenSlide(svs) as slide:
        assert slide.properties["openslide.vendor"] == "aperio"
        assert float(slide.properties["openslide.mpp-x"]) == 0.25
        assert slide.properties["openslide.objective-power"] == "40"
        assert slide.level_dimensions == ((1333, 1100), (333, 275), (83, 68))
        assert set(slide.associated_images) == {"label", "macro", "thumbnail"}
        for name in slide.associated_images:
            assert min(slide.associated_images[name].size) > 32


@pytest.mark.parametrize("reader", ["openslide", "tiffslide"])
def test_pixels_come_back(svs: Path, image: np.ndarray, reader: str) -> None:
    with open_slide(svs, SlideConfig.model_validate({"reader": reader})) as slide:
        assert (slide.size, slide.mpp) == (SIZE, (0.25, 0.25))
        got = slide.read_level(0, Box(0, 0, *SIZE)).astype(float)
        assert np.abs(got - image).mean() < 3
        for level in (1, 2):
            factor = 4**level
            box = Box(0, 0, *slide.level_sizes[level])
            part = image[: box.height * factor, : box.width * factor]
            blocks = part.reshape(box.height, factor, box.width, factor, 3)
            got = slide.read_level(level, box).astype(float)
            assert np.abs(got - blocks.mean(axis=(1, 3))).mean() < 4


def test_bytes_do_not_depend_on_the_executor(svs: Path, image: np.ndarray, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        assert write(tmp_path / "b.svs", image, pool).read_bytes() == svs.read_bytes()
