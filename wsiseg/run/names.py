"""Names of outputs: one a slide, whatever the slides are called."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

__all__ = ["name_outputs"]

_LONGEST = 200
"""Bytes of a name: file systems take 255, of which endings and temporary names need some."""


def name_outputs(slides: Sequence[tuple[Path, Path]]) -> list[str]:
    """A name for each slide, with its sub-folder; no two are alike, in upper case or lower.

    A slide's outputs are named as it is, without the extension. Of those that would collide, each
    keeps its extension, and gets a short hash of its path if that is not enough. A name that is too
    long for a file's name with an ending is cut, and ends in a short hash of the whole.

    Parameters
    ----------
    slides
        Path of each, and its path within the input.
    """
    choices = [
        [
            _shorten(name)
            for name in (
                within.with_suffix("").as_posix(),
                within.as_posix(),
                f"{within.as_posix()}-{_hash(os.path.realpath(path))}",
                f"{within.as_posix()}-{_hash(os.path.abspath(path))}",
            )
        ]
        for path, within in slides
    ]
    level = [0] * len(choices)
    while True:
        keys = [_fold(names[at]) for names, at in zip(choices, level, strict=True)]
        lowest: dict[str, int] = {}
        for key, at in zip(keys, level, strict=True):
            lowest[key] = min(at, lowest.get(key, at))
        count = Counter(keys)
        # Of names that collide, those without an extension yield to those that have it already.
        again = [
            number for number, (key, at) in enumerate(zip(keys, level, strict=True))
            if count[key] > 1 and at == lowest[key] and at + 1 < len(choices[number])
        ]  # fmt: skip
        if not again:
            return [names[at] for names, at in zip(choices, level, strict=True)]
        for number in again:
            level[number] += 1


def _shorten(name: str) -> str:
    path = PurePosixPath(name)
    data = os.fsencode(path.name)
    if len(data) <= _LONGEST:
        return name
    tag = _hash(path.name)
    kept = data[: _LONGEST - len(tag) - 1].decode("utf-8", "ignore")  # never half a letter
    return path.with_name(f"{kept}-{tag}").as_posix()


def _hash(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:8]


def _fold(name: str) -> str:
    """Equal for names that some file systems take for one."""
    return unicodedata.normalize("NFC", name).casefold()
