"""Small Aperio files: JPEG tiles in a TIFF, as the direct reader takes them."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from wsiseg.config import SlideConfig
from wsiseg.slide import open_slide
from wsiseg.slide.base import PyramidSlide

Image = NDArray[np.uint8]
APERIO = "Aperio Image Library v12.0.16\n{0}x{1} (64x64) JPEG Q=80|AppMag = 40|MPP = 0.25"


def opened(
    path: Path, reader: str = "direct", scaled: bool = False, **more: object
) -> PyramidSlide:
    config = SlideConfig.model_validate({"reader": reader, "scaled_decode": scaled, **more})
    slide = open_slide(path, config)
    assert isinstance(slide, PyramidSlide)
    return slide


def picture(height: int, width: int) -> Image:
    """Smooth colours with some grain, as JPEG likes them."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 9 + i) + np.cos(y / (7 + i)) for i in range(3)]
    grain = np.random.default_rng(3).normal(0, 4, (height, width, 3))
    return np.clip(np.stack(waves, 2) * 50 + 128 + grain, 0, 255).astype(np.uint8)


def write_aperio(
    path: Path, image: Image, tile: int = 64, rgb: bool = False, missing: tuple[int, ...] = ()
) -> Path:
    """A small Aperio file, tiles `missing` of 0 bytes; `rgb` as old Aperio scanners write it."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, -height % tile), (0, -width % tile), (0, 0)), mode="edge")
    tiles = []
    for y in range(0, height, tile):
        for x in range(0, width, tile):
            part = np.ascontiguousarray(padded[y : y + tile, x : x + tile])
            out = "RGB" if rgb else "YCBCR"
            stream = bytes(
                imagecodecs.jpeg8_encode(
                    part, level=80, colorspace="RGB", outcolorspace=out,
                    subsampling="444" if rgb else "420",
                )
            )  # fmt: skip
            tiles.append(b"" if len(tiles) in missing else hide_colours(stream))
    tifffile.imwrite(
        path, iter(tiles), shape=image.shape, dtype=np.uint8, tile=(tile, tile),
        photometric="rgb" if rgb else "ycbcr", compression="jpeg", metadata=None, software=False,
        subsampling=None if rgb else (2, 2),
        compressionargs={"outcolorspace": "rgb"} if rgb else None,
        description=APERIO.format(width, height),
    )  # fmt: skip
    return path


def luma(image: NDArray[np.generic]) -> NDArray[np.float64]:
    return np.asarray(image @ np.array([0.299, 0.587, 0.114]))


def hide_colours(stream: bytes) -> bytes:
    """A JPEG stream that does not say whether it is RGB: no Adobe marker, components 1, 2, 3."""
    stream = stream.replace(b"\xff\xee\x00\x0eAdobe\x00d" + bytes(5), b"")
    frame, scan = (stream.index(marker) for marker in (b"\xff\xc0\x00\x11", b"\xff\xda\x00\x0c"))
    plain = bytearray(stream)
    for i in range(3):
        plain[frame + 10 + 3 * i] = plain[scan + 5 + 2 * i] = i + 1
    return bytes(plain)
