"""Unique names of outputs, one per slide."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

__all__ = ["name_outputs"]

_MAX_BYTES = 200
"""Of a name: file systems take 255, of which endings and temporary names need some."""


def name_outputs(
    slides: Sequence[tuple[Path, Path]], is_named: Callable[[Path, str], bool] | None = None
) -> list[str]:
    """Return a name for each slide, with its sub-folder; names differ even if case is ignored.

    Outputs are named after the slide, without its extension. Slides whose names would collide keep
    the extension, and get a short hash of their path if that is not enough. A name too long for a
    file name with an ending is cut, and ends in a short hash of the whole. A slide that has one of
    these names already keeps it, whichever slides are there today.

    Parameters
    ----------
    slides
        Path of each slide, and its path within the input.
    is_named
        Whether an earlier run gave that slide that name.
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
    if is_named is not None:
        for number, (path, _) in enumerate(slides):
            kept = next((name for name in choices[number] if is_named(path, name)), None)
            choices[number] = choices[number] if kept is None else [kept]
    level = [0] * len(choices)
    while True:
        keys = [_fold(names[at]) for names, at in zip(choices, level, strict=True)]
        lowest: dict[str, int] = {}
        count = Counter(keys)
        movable = [
            number for number, (key, at) in enumerate(zip(keys, level, strict=True))
            if count[key] > 1 and at + 1 < len(choices[number])
        ]  # fmt: skip
        for number in movable:
            lowest[keys[number]] = min(level[number], lowest.get(keys[number], level[number]))
        # Of names that collide, those without an extension yield to those that have it already.
        again = [number for number in movable if level[number] == lowest[keys[number]]]
        if not again:
            return [names[at] for names, at in zip(choices, level, strict=True)]
        for number in again:
            level[number] += 1


def _shorten(name: str) -> str:
    path = PurePosixPath(name)
    data = os.fsencode(path.name)
    if len(data) <= _MAX_BYTES:
        return name
    tag = _hash(path.name)
    kept = data[: _MAX_BYTES - len(tag) - 1].decode("utf-8", "ignore")  # never half a letter
    return path.with_name(f"{kept}-{tag}").as_posix()


def _hash(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:8]


def _fold(name: str) -> str:
    """Return a key that is equal for names that some file systems do not distinguish."""
    return unicodedata.normalize("NFC", name).casefold()
