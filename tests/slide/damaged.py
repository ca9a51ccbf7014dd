"""Slides with tiles that cannot be decoded."""

from __future__ import annotations

from pathlib import Path

import tifffile


def spoil(path: Path, *tiles: int) -> Path:
    """Overwrite tiles with bytes that no codec takes."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        spots = [(page.dataoffsets[i], page.databytecounts[i]) for i in tiles]
    content = bytearray(path.read_bytes())
    for offset, count in spots:
        content[offset : offset + count] = b"\x5a" * count
    path.write_bytes(content)
    return path
