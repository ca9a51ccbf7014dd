"""How a GeoJSON file of ours shows that nobody changed it: by a hash of its features at its end."""

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

__all__ = ["END", "STAMPED_END", "end_of", "keep_edited", "read_stamp"]

END = b"\n]}\n"
"""How the features of a collection end that is written one feature a line."""

STAMPED_END = re.compile(rb'\n\](?:,"wsiseg_sha256":"([0-9a-f]{64})")?\}\s*')
"""The same, with the hash or without."""

_LONGEST_END = 200


def end_of(features: bytes) -> bytes:
    """The end of a file whose features, from the second line on, have this sha256 (32 bytes)."""
    return b'\n],"wsiseg_sha256":"%b"}\n' % features.hex().encode()


def read_stamp(path: Path) -> dict[str, Any] | None:
    """What `write_geojson` noted in a file; None if its features are not as it wrote them.

    So None for a file that somebody edited, for one that QuPath wrote, and if there is none.
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


def keep_edited(path: Path) -> Path | None:
    """Move a file that is not as we wrote it to ``NAME.edited.geojson`` beside it.

    Returns
    -------
    Where it is now; None if there is no file at `path`, or nobody changed it.
    """
    if not path.is_file() or read_stamp(path) is not None:
        return None
    aside = free_name(path, ".edited")
    os.replace(path, aside)
    return aside
