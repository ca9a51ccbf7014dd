"""Write a pyramid as an Aperio SVS file, level 0 streamed by rows of tiles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from itertools import pairwise
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from wsiseg.geometry import Size

__all__ = ["TILE", "write_svs"]

TILE = 256
"""Side of a tile; a strip is a row of them."""

_SHRINK = 4  # from level to level
_LEVELS = 3
_QUALITY = 85
_VENDOR = "Aperio Image Library v12.0.16"
_LABEL, _MACRO = 1, 9  # TIFF NewSubfileType, as Aperio sets it
_THUMBNAIL = 768

Image = NDArray[np.uint8]


def write_svs(
    path: Path, size: Size, strips: Iterable[Image], mpp: float, executor: Executor
) -> None:
    """Write level 0 from `strips` as they come, then the thumbnail, the coarser levels and a label.

    Parameters
    ----------
    path
        The file, written over.
    size
        Level-0 pixels.
    strips
        ``(256, width, 3)`` uint8 RGB from top to bottom; the last may be lower.
    mpp
        Level-0 µm/px.
    executor
        Encodes the tiles; the file does not depend on how many it does at a time.
    """
    coarse: list[Image] = []
    head = f"{_VENDOR}\n{size.width}x{size.height} [0,0 {size.width}x{size.height}]"
    facts = f"AppMag = {10 / mpp:g}|StripeWidth = {TILE}|MPP = {mpp:.4f}"
    tiles = f"({TILE}x{TILE})"
    with tifffile.TiffWriter(path, bigtiff=size.width * size.height > 2**31) as tiff:
        encoded = _encode_strips(strips, coarse, executor)
        _write_level(tiff, size, encoded, f"{head} {tiles} JPEG/RGB Q={_QUALITY}|{facts}")
        levels = _pyramid(np.concatenate(coarse))
        small = _thumbnail(levels)
        shown = f"{small.shape[1]}x{small.shape[0]}"
        _write_flat(tiff, small, f"{head} -> {shown} - |{facts}", 0)
        for level in levels:
            below = Size(level.shape[1], level.shape[0])
            encoded = _encode_strips(_cut(level), [], executor)
            text = f"{head} {tiles} -> {below.width}x{below.height} JPEG/RGB Q={_QUALITY}"
            _write_level(tiff, below, encoded, text)
        label = np.full((128, 128, 3), 230, np.uint8)
        _write_flat(tiff, label, f"{_VENDOR}\nlabel 128x128", _LABEL)
        _write_flat(tiff, small, f"{_VENDOR}\nmacro {shown}", _MACRO)


def _write_level(
    tiff: tifffile.TiffWriter, size: Size, tiles: Iterator[bytes], description: str
) -> None:
    tiff.write(
        tiles, shape=(size.height, size.width, 3), dtype=np.uint8, tile=(TILE, TILE),
        photometric="ycbcr", subsampling=(2, 2), compression="jpeg", **_tags(description),
    )  # fmt: skip


def _write_flat(tiff: tifffile.TiffWriter, image: Image, description: str, kind: int) -> None:
    tiff.write(
        image, photometric="ycbcr", subsampling=(2, 2), compression="jpeg", rowsperstrip=len(image),
        compressionargs={"level": _QUALITY}, subfiletype=kind, **_tags(description),
    )  # fmt: skip


def _tags(description: str) -> dict[str, Any]:
    # No date and no software: the bytes depend on the seed alone.
    return {"description": description, "metadata": None, "software": False}


def _encode_strips(
    strips: Iterable[Image], coarse: list[Image], executor: Executor
) -> Iterator[bytes]:
    for strip in strips:
        coarse.append(_shrink(strip))
        yield from executor.map(_encode, _tiles(strip))


def _tiles(strip: Image) -> list[Image]:
    height, width = (-(-side // TILE) * TILE for side in strip.shape[:2])
    # Tiles past the edge repeat its last pixel: no ringing, few bytes.
    gap = ((0, height - strip.shape[0]), (0, width - strip.shape[1]), (0, 0))
    whole = np.pad(strip, gap, mode="edge")
    return [np.ascontiguousarray(whole[:, x : x + TILE]) for x in range(0, width, TILE)]


def _encode(tile: Image) -> bytes:
    encoded = imagecodecs.jpeg8_encode(
        tile, level=_QUALITY, colorspace="RGB", outcolorspace="YCBCR", subsampling="420"
    )
    return bytes(encoded)


def _shrink(image: Image) -> Image:
    """Mean of 4 x 4 pixels; what is left over right and below is dropped, as Aperio does."""
    height, width = (side // _SHRINK for side in image.shape[:2])
    whole = image[: height * _SHRINK, : width * _SHRINK]
    blocks = whole.reshape(height, _SHRINK, width, _SHRINK, 3)
    rows = blocks.sum(axis=1, dtype=np.uint16)
    return np.asarray((rows.sum(axis=2, dtype=np.uint16) + 8) // 16, np.uint8)


def _pyramid(level: Image) -> list[Image]:
    levels = [level]
    while len(levels) < _LEVELS - 1:
        levels.append(_shrink(levels[-1]))
    return levels


def _thumbnail(levels: list[Image]) -> Image:
    step = -(-max(levels[-1].shape) // _THUMBNAIL)
    return np.ascontiguousarray(levels[-1][::step, ::step])


def _cut(level: Image) -> Iterator[Image]:
    edges = [*range(0, len(level), TILE), len(level)]
    return (level[top:bottom] for top, bottom in pairwise(edges))
