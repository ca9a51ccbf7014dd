"""Write a pyramid as an Aperio SVS file, level 0 streamed by rows of tiles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from wsiseg.geometry import Size

__all__ = ["TILE", "Coding", "write_svs"]

TILE = 256
"""Side of a tile; a strip is a row of them."""

_SHRINK = 4  # from level to level
_LEVELS = 3
_VENDOR = "Aperio Image Library v12.0.16"
_LABEL, _MACRO = 1, 9  # TIFF NewSubfileType, as Aperio sets it
_THUMBNAIL = 768

Image = NDArray[np.uint8]


class Coding(NamedTuple):
    """How tiles are stored."""

    tile: int = TILE
    """Side in pixels."""
    quality: int = 85
    """Quality of the JPEG, 4:2:0."""


_CODING = Coding()


def write_svs(
    path: Path,
    size: Size,
    strips: Iterable[Image],
    mpp: float,
    executor: Executor,
    coding: Coding = _CODING,
) -> None:
    """Write level 0 from `strips` as they come, then the thumbnail, the coarser levels and a label.

    Parameters
    ----------
    path
        The file; overwritten if it exists.
    size
        Level-0 pixels.
    strips
        ``(coding.tile, width, 3)`` uint8 RGB from top to bottom; the last may be shorter.
    mpp
        Level-0 µm/px.
    executor
        Encodes the tiles; the file does not depend on how many are encoded at a time.
    coding
        Size and quality of the tiles.
    """
    tile, quality = coding
    coarse: list[Image] = []
    head = f"{_VENDOR}\n{size.width}x{size.height} [0,0 {size.width}x{size.height}]"
    facts = f"AppMag = {10 / mpp:g}|StripeWidth = {tile}|MPP = {mpp:.4f}"
    tiles = f"({tile}x{tile})"
    with tifffile.TiffWriter(path, bigtiff=size.width * size.height > 2**31) as tiff:
        encoded = _encode_strips(strips, coarse, executor, coding)
        _write_level(tiff, size, encoded, tile, f"{head} {tiles} JPEG/RGB Q={quality}|{facts}")
        levels = _pyramid(np.concatenate(coarse))
        small = _thumbnail(levels)
        shape = f"{small.shape[1]}x{small.shape[0]}"
        _write_flat(tiff, small, f"{head} -> {shape} - |{facts}", 0)
        for level in levels:
            reduced = Size(level.shape[1], level.shape[0])
            encoded = _encode_strips(_cut(level, tile), [], executor, coding)
            text = f"{head} {tiles} -> {reduced.width}x{reduced.height} JPEG/RGB Q={quality}"
            _write_level(tiff, reduced, encoded, tile, text)
        label = np.full((128, 128, 3), 230, np.uint8)
        _write_flat(tiff, label, f"{_VENDOR}\nlabel 128x128", _LABEL)
        _write_flat(tiff, small, f"{_VENDOR}\nmacro {shape}", _MACRO)


def _write_level(
    tiff: tifffile.TiffWriter, size: Size, tiles: Iterator[bytes], side: int, description: str
) -> None:
    tiff.write(
        tiles, shape=(size.height, size.width, 3), dtype=np.uint8, tile=(side, side),
        photometric="ycbcr", subsampling=(2, 2), compression="jpeg", **_tags(description),
    )  # fmt: skip


def _write_flat(tiff: tifffile.TiffWriter, image: Image, description: str, kind: int) -> None:
    tiff.write(
        image, photometric="ycbcr", subsampling=(2, 2), compression="jpeg", rowsperstrip=len(image),
        compressionargs={"level": _CODING.quality}, subfiletype=kind, **_tags(description),
    )  # fmt: skip


def _tags(description: str) -> dict[str, Any]:
    # No date and no software: the bytes depend on the seed alone.
    return {"description": description, "metadata": None, "software": False}


def _encode_strips(
    strips: Iterable[Image], coarse: list[Image], executor: Executor, coding: Coding
) -> Iterator[bytes]:
    encode = partial(_encode, quality=coding.quality)
    for strip in strips:
        coarse.append(_shrink(strip))
        yield from executor.map(encode, _tiles(strip, coding.tile))


def _tiles(strip: Image, tile: int) -> list[Image]:
    height, width = (-(-side // tile) * tile for side in strip.shape[:2])
    # Tiles past the edge repeat its last pixel: no ringing, few bytes.
    padding = ((0, height - strip.shape[0]), (0, width - strip.shape[1]), (0, 0))
    padded = np.pad(strip, padding, mode="edge")
    return [np.ascontiguousarray(padded[:, x : x + tile]) for x in range(0, width, tile)]


def _encode(tile: Image, quality: int) -> bytes:
    encoded = imagecodecs.jpeg8_encode(
        tile, level=quality, colorspace="RGB", outcolorspace="YCBCR", subsampling="420"
    )
    return bytes(encoded)


def _shrink(image: Image) -> Image:
    """Mean of 4 x 4 pixels; the remainder on the right and below is dropped, as Aperio does."""
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


def _cut(level: Image, tile: int) -> Iterator[Image]:
    edges = [*range(0, len(level), tile), len(level)]
    return (level[top:bottom] for top, bottom in pairwise(edges))
