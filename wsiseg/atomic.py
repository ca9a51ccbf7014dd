"""Atomic file writes: a file appears complete or not at all."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "free_name",
    "list_taken",
    "open_atomic",
    "put_aside",
    "remove_parts",
    "write_picture",
]

_PART = re.compile(r"\..+\.\d+\.\d+\.part|.+\.[0-9a-f]{32}\.partial")
"""Temporary files of `open_atomic` and of zarr that were not renamed into place."""

_FULL = (errno.EDQUOT, errno.EFBIG, errno.ENOSPC)
"""Errors of writing, which name no file."""

_LONG = 160
"""File names longer than this (bytes) leave no space within 255 for a temporary name's affixes."""

_SUFFIX = re.compile(r"(?i)\.(geo)?json(\.gz)?$|\.ome\.tiff?$")
"""File name suffixes that contain more than one dot."""


def free_name(path: Path, mark: str) -> Path:
    """Return an unused sibling of `path`, with `mark` (numbered if necessary) before its suffix."""
    return next(name for name in _names(path, mark) if not name.exists())


def list_taken(path: Path, mark: str) -> list[Path]:
    """List the existing files that were named by `free_name`."""
    return list(takewhile(Path.exists, _names(path, mark)))


def _names(path: Path, mark: str) -> Iterator[Path]:
    suffix = match[0] if (match := _SUFFIX.search(path.name)) else path.suffix
    base = path.name[: len(path.name) - len(suffix)]
    for number in count(1):
        yield path.with_name(f"{base}{mark}{number if number > 1 else ''}{suffix}")


@contextmanager
def open_atomic(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary file for writing; it replaces `path` when the block ends.

    If the block raises, `path` is left unchanged. Missing folders are created. Errors of the file
    system name `path`.
    """
    target = Path(path)
    # `tempfile` would leave a file that only its owner may read.
    name = target.name
    if len(os.fsencode(name)) > _LONG:  # the part's name must fit where the target's does
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    part = target.with_name(f".{name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        with _open_part(part) as file:
            yield file
        os.replace(part, target)
    except OSError as error:
        if error.errno in _FULL or error.filename in (part, str(part)):
            raise OSError(error.errno, error.strerror, str(target)) from error
        raise
    finally:
        with suppress(OSError):  # it is not there, as its folder is none
            part.unlink(missing_ok=True)


def _open_part(part: Path) -> BinaryIO:
    """Open a file for writing; create its folders only if they are missing, which is rare."""
    try:
        return part.open("wb")
    except FileNotFoundError:
        part.parent.mkdir(parents=True, exist_ok=True)
        return part.open("wb")


def write_picture(
    picture: Image.Image, path: str | Path, kind: str = "PNG", **options: Any
) -> Path:
    """Write a picture in the format `kind`, with Pillow's `options` of it; return the path."""
    # Into memory first: Pillow writes to a file's descriptor and does not see that a disk is full.
    data = io.BytesIO()
    picture.save(data, kind, **options)
    with open_atomic(path) as file:
        file.write(data.getbuffer())
    return Path(path)


def put_aside(path: str | Path) -> Path:
    """Rename a file or folder to ``<path>.old``, ``.old2`` and so on; return the new path."""
    path, number = Path(path), 1
    while (target := path.with_name(f"{path.name}.old{number if number > 1 else ''}")).exists():
        number += 1
    os.replace(path, target)
    return target


def remove_parts(folder: str | Path, before: float) -> None:
    """Delete temporary files of killed writers below `folder` last modified before `before`."""
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names if _PART.fullmatch(name)):
            with suppress(OSError):  # renamed into place meanwhile, or no permission
                if path.stat().st_mtime < before:
                    path.unlink()
