from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

import wsiseg.slide
import wsiseg.tile
from wsiseg.compute import SerialExecutor
from wsiseg.config import Config, parse_config
from wsiseg.store import SlideStore

SLIDES = Path(__file__).resolve().parents[3] / "shared" / "data" / "slides"
MPP = 1.0
SERIAL = SerialExecutor()
Image = NDArray[np.uint8]


def settle(**changes: Any) -> Config:
    """Small tiles at the slide's own resolution, and `step={...}` changed."""
    tile = {"mpp": MPP, "tile": 32, "stride": 32, "block": 128}
    base = {"tile": tile, "tissue": {"min_area_um2": 2000.0}}
    for step, values in changes.items():
        base[step] = {**base.get(step, {}), **values}
    return parse_config(base, Config, "test")


CONFIG = settle()


def paint(height: int = 480, width: int = 620) -> Image:
    """Glass with a few pieces of noisy tissue; blocks of 128 px: 20, half of them empty."""
    rng = np.random.default_rng(5)
    image = np.full((height, width, 3), 244, np.int64)
    rows, cols = np.mgrid[:height, :width]
    for x, y, radius in ((150, 130, 75), (500, 330, 60), (610, 40, 40)):
        image[np.hypot(rows - y, cols - x) < radius] = (190, 110, 170)
    return np.clip(image + rng.integers(-6, 7, image.shape), 0, 255).astype(np.uint8)


def save(path: Path, image: Image, mpp: float = MPP) -> Path:
    per_cm = 1e4 / mpp
    tifffile.imwrite(
        path, image, photometric="rgb", tile=(64, 64), compression="zlib",
        resolution=(per_cm, per_cm), resolutionunit="CENTIMETER",
    )  # fmt: skip
    return path


def contents(store: Path) -> dict[str, str]:
    """Sha256 of every file of a store but the facts that name paths."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.name != "zarr.json"
    }


def written_blocks(store: SlideStore) -> int:
    return sum(path.is_file() for path in store.path.glob("image/0/c/0/*/*"))


def counting(monkeypatch: pytest.MonkeyPatch, limit: int | None = None) -> list[int]:
    """Note each block that is read and written; break off after `limit` of them."""
    done: list[int] = []
    real: Callable[..., None] = wsiseg.tile._tile_block

    def work(block: int, **rest: Any) -> None:
        if limit is not None and len(done) >= limit:
            raise KeyboardInterrupt
        real(block, **rest)
        done.append(block)

    monkeypatch.setattr(wsiseg.tile, "_tile_block", work)
    return done
