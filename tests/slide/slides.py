from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

SLIDES = Path(__file__).resolve().parents[3] / "shared" / "data" / "slides"
CMU = "CMU-1-Small-Region.svs"
TCGA = "tcga-cr-7395-01a-01-ts1.svs"
HE2 = "lung_scc_HE2.svs"
READERS = ("direct", "openslide", "tiffslide")
Image = NDArray[np.uint8]


def data(name: str) -> Path:
    path = SLIDES / name
    if not path.is_file():
        pytest.skip(f"shared/data/slides/{name} is not beside the checkout")
    return path


def noise(height: int, width: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
