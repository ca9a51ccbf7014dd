"""Hashes of files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

__all__ = ["hash_file", "hash_files"]


def hash_file(path: Path) -> str:
    """Return the hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(paths: Iterable[Path]) -> list[str]:
    """Return `hash_file` of each, several at a time."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(hash_file, paths))
