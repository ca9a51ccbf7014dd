"""Files of a folder, to compare two runs by."""

from __future__ import annotations

from pathlib import Path

UNNAMED = (".partial", ".part")
"""Endings of what a killed writer began and never named."""


def contents(folder: Path, *places: str, unnamed: bool = True) -> dict[str, bytes]:
    """Return the bytes of all files below `places` of a folder, or below all of it, by their path.

    Without `unnamed`, what has an ending of `UNNAMED` is left out.
    """
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for place in places or ("",)
        for file in sorted((folder / place).rglob("*"))
        if file.is_file() and (unnamed or not file.name.endswith(UNNAMED))
    }
