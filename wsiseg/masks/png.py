"""Masks as PNG files that record what made them, so that an interrupted run can resume."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import NamedTuple
from zlib import compress

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from wsiseg.annotations import Palette
from wsiseg.evaluate.pictures import to_mask
from wsiseg.stamps import is_unchanged, read_stamp, write_stamped

__all__ = ["Stamp", "read_confidence_digest", "read_mask", "write_confidence", "write_mask"]


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
    write_stamped(to_mask(labels, palette), path, stamp._asdict())


def write_confidence(
    confidence: NDArray[np.floating],
    numbers: NDArray[np.uint8],
    digest: str,
    model: str,
    path: Path,
) -> None:
    """Write ``(H, W)`` values in [0, 1] as grey, 255 being 1, of the mask with this `digest`.

    The mask's ``(H, W)`` `numbers` go with it: a person may edit the mask, and what was changed has
    this confidence no longer. So does the sha256 of the `model`, as an edited mask may have lost
    its stamp.
    """
    grey = Image.fromarray((confidence * 255).round().astype(np.uint8))
    labels = b64encode(compress(numbers.tobytes())).decode()
    write_stamped(grey, path, {"digest": digest, "model": model, "labels": labels})


def read_confidence_digest(path: Path) -> str | None:
    """Return the digest of the mask whose confidence this is; None if nothing says so."""
    try:
        with Image.open(path) as picture:
            digest = read_stamp(picture).get("digest")
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError):
        return None
    return digest if isinstance(digest, str) else None


def read_mask(path: Path) -> tuple[NDArray[np.uint8], Stamp] | None:
    """Return the numbers ``(H, W)`` and the stamp of a mask; None if it is not one of ours.

    That includes masks that were edited since `write_mask` wrote them.
    """
    try:
        with Image.open(path) as picture:
            stamp = read_stamp(picture)
            if not is_unchanged(picture, stamp):
                return None
            numbers = np.asarray(picture)
        return numbers, Stamp(stamp["digest"], tuple(stamp["gates"]), stamp["confidence"])
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, UnidentifiedImageError):
        return None
