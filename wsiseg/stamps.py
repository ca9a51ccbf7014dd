"""What wsiseg notes in PNG files that it makes and reads again."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from wsiseg.atomic import write_picture

__all__ = ["is_unchanged", "read_stamp", "write_stamped"]

_KEY = "wsiseg"


def write_stamped(picture: Image.Image, path: Path, facts: Mapping[str, object]) -> None:
    """Write a PNG with `facts`, which have to be JSON, and a checksum of its pixels."""
    text = PngImagePlugin.PngInfo()
    text.add_text(_KEY, json.dumps({**facts, "pixels": _sum_pixels(picture)}))
    write_picture(picture, path, pnginfo=text)


def read_stamp(picture: Image.Image) -> dict[str, Any]:
    """Return the facts in an open picture, empty if it has none.

    They may be those of a picture that was edited since: see `is_unchanged`.
    """
    picture.load()  # text may follow the pixels
    try:
        return dict(json.loads(picture.info[_KEY]))
    except (KeyError, TypeError, ValueError):
        return {}


def is_unchanged(picture: Image.Image, stamp: Mapping[str, Any]) -> bool:
    """Whether the picture has the pixels that it was stamped with."""
    return stamp.get("pixels") == _sum_pixels(picture)


def _sum_pixels(picture: Image.Image) -> int:
    return zlib.crc32(np.asarray(picture).tobytes())
