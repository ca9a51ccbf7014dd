"""Detect edits of our GeoJSON files by a hash of their features at the end of the file."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import zlib
from pathlib import Path
from typing import Any

import orjson

from wsiseg.atomic import free_name

__all__ = ["END", "STAMPED_END", "end_of", "keep_edited", "read_head", "read_stamp"]

END = b"\n]}\n"
"""End of a collection that is written with one feature per line."""

STAMPED_END = re.compile(rb'\n\](?:,"wsiseg_sha256":"([0-9a-f]{64})")?\}\s*')
"""The same end, with or without the hash."""

_LONGEST_END = 200
_LONGEST_HEAD = 2**20


def end_of(features: bytes) -> bytes:
    """Return the end of a file; `features` is the sha256 (32 bytes) from the second line on."""
    return b'\n],"wsiseg_sha256":"%b"}\n' % features.hex().encode()


def read_stamp(path: Path) -> dict[str, Any] | None:
    """Read the facts that `write_geojson` stored; None if the features have changed since.

    Also None for files that QuPath wrote, and if there is no file.
    """
    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
        head, _, features = data.partition(b"\n")
        end = STAMPED_END.search(features, max(0, len(features) - _LONGEST_END))
        if end is None or end.end() < len(features) or end[1] is None:
            return None
        if hashlib.sha256(memoryview(features)[: end.start()]).hexdigest() != end[1].decode():
            return None
        return dict(orjson.loads(head + b"]}")["wsiseg"])
    except (OSError, EOFError, zlib.error, ValueError, LookupError, TypeError):
        return None


def read_head(path: Path) -> dict[str, Any]:
    """Read the facts that `write_geojson` stored, without the features or whether they changed.

    Empty for files that QuPath wrote, and if there is no file.
    """
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            return dict(orjson.loads(file.readline(_LONGEST_HEAD) + b"]}")["wsiseg"])
    except (OSError, EOFError, zlib.error, ValueError, LookupError, TypeError):
        return {}


def keep_edited(path: Path) -> Path | None:
    """Rename a file that is not as we wrote it to ``NAME.edited.geojson``.

    Returns
    -------
    The new path; None if there is no file at `path`, or it was not edited.
    """
    if not path.is_file() or read_stamp(path) is not None:
        return None
    aside = free_name(path, ".edited")
    os.replace(path, aside)
    return aside
