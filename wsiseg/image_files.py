"""Image files of patches: those of a folder, and their pixels."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["list_images", "read_image"]

_LOG = logging.getLogger(__name__)

_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_OTHERS = (".avif", ".gif", ".heic", ".jp2", ".webp")
_MAX_NAMED = 3


def list_images(folder: Path) -> list[Path]:
    """List the images of a folder by name; a warning names those in formats that are left out."""
    files = sorted(folder.iterdir())
    others = [path.name for path in files if path.suffix.lower() in _OTHERS]
    if others:
        more = ", ..." if len(others) > _MAX_NAMED else ""
        _LOG.warning(
            "%s: %d image(s) left out: %s%s; those read are %s, so convert them to PNG",
            folder, len(others), ", ".join(others[:_MAX_NAMED]), more, ", ".join(_SUFFIXES),
        )  # fmt: skip
    return [path for path in files if path.suffix.lower() in _SUFFIXES]


def read_image(path: Path) -> NDArray[np.uint8]:
    """Return ``(H, W, 3)`` uint8 RGB.

    Raises
    ------
    OSError, SyntaxError, ValueError
        If the file is not a whole image, or has pixels of more than 8 bits, whose range is unknown.
    """
    with Image.open(path) as image:
        if image.mode.startswith(("I", "F")):  # Pillow would make all above 255 white
            raise ValueError(f"its grey has more than 8 bits ({image.mode}); save it as 8-bit RGB")
        if _is_deep(image):  # Pillow would take the higher half, and 12 bits for nearly black
            raise ValueError("its colours have more than 8 bits; save it as 8-bit RGB")
        return np.asarray(image.convert("RGB"))


def _is_deep(image: Image.Image) -> bool:
    """Whether the colours of a file have more than 8 bits."""
    bits = getattr(image, "tag_v2", {}).get(258, (8,))  # BitsPerSample of a TIFF
    return np.max(bits) > 8 or any(";16" in str(part.args) for part in getattr(image, "tile", ()))
