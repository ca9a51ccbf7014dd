"""Masks as PNG files that record what made them, so that an interrupted run can resume."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from wsiseg.annotations import Palette
from wsiseg.atomic import write_picture
from wsiseg.evaluate.pictures import to_mask

__all__ = ["Stamp", "read_mask", "write_confidence", "write_mask"]

_KEY = "wsiseg"


class Stamp(NamedTuple):
    """The metadata stored in a mask."""

    digest: str
    """Of the image, the model and the settings that made it."""
    gates: tuple[bool, ...]
    """Whether each class was allowed."""
    confidence: float
    """Mean over the pixels, in [0, 1]."""


def write_mask(labels: NDArray[np.uint8], palette: Palette, stamp: Stamp, path: Path) -> None:
    """Write ``(H, W)`` labels, numbered as by `to_mask`, with their stamp."""
    picture = to_mask(labels, palette)
    text = PngImagePlugin.PngInfo()
    pixels = zlib.crc32(np.asarray(picture).tobytes())
    text.add_text(_KEY, json.dumps({**stamp._asdict(), "pixels": pixels}))
    write_picture(picture, path, pnginfo=text)


def write_confidence(confidence: NDArray[np.floating], path: Path) -> None:
    """Write ``(H, W)`` values in [0, 1] as grey, 255 being 1."""
    write_picture(Image.fromarray((confidence * 255).round().astype(np.uint8)), path)


def read_mask(path: Path) -> tuple[NDArray[np.uint8], Stamp] | None:
    """Return the numbers ``(H, W)`` and the stamp of a mask; None if it is not one of ours.

    That includes masks that were edited since `write_mask` wrote them.
    """
    try:
        with Image.open(path) as picture:
            numbers = np.asarray(picture)
            stamp = json.loads(picture.info[_KEY])
        if zlib.crc32(numbers.tobytes()) != stamp["pixels"]:
            return None
        return numbers, Stamp(stamp["digest"], tuple(stamp["gates"]), stamp["confidence"])
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, UnidentifiedImageError):
        return None
