"""Unique names of outputs, one per slide."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Protocol

__all__ = ["Known", "fold_name", "name_outputs"]

_MAX_BYTES = 200
"""Of a name: file systems take 255, of which endings and temporary names need some."""


class Known(Protocol):
    """The names that slides have from earlier runs."""

    def keep(self, slides: Sequence[tuple[Path, Sequence[str]]]) -> list[str | None]:
        """Return the name that each slide has; None for those that have none.

        `slides` are the path of each, and the names that it might have.
        """

    def is_taken(self, name: str) -> bool:
        """Whether a slide has that name, even if only case differs."""


def name_outputs(slides: Sequence[tuple[Path, Path]], known: Known | None = None) -> list[str]:
    """Return a name for each slide, with its sub-folder; names differ even if case is ignored.

    Outputs are named after the slide, without its extension. Slides whose names would collide keep
    the extension, and get a short hash of their path if that is not enough. A name too long for a
    file name with an ending is cut, and ends in a short hash of the whole. A slide that has a name
    already keeps it, whichever slides are there today, and no other slide gets it.

    Parameters
    ----------
    slides
        Path of each slide, and its path within the input.
    known
        The names that slides have already.
    """
    choices = [_list_choices(path, within) for path, within in slides]
    if known is not None:
        paths = [path for path, _ in slides]
        kept = known.keep(list(zip(paths, choices, strict=True)))
        choices = [
            [name] if name is not None else _leave_free(within, path, names, known)
            for (path, within), names, name in zip(slides, choices, kept, strict=True)
        ]
    level = [0] * len(choices)
    while True:
        keys = [fold_name(names[at]) for names, at in zip(choices, level, strict=True)]
        lowest: dict[str, int] = {}
        times = Counter(keys)
        movable = [
            number for number, (key, at) in enumerate(zip(keys, level, strict=True))
            if times[key] > 1 and at + 1 < len(choices[number])
        ]  # fmt: skip
        for number in movable:
            lowest[keys[number]] = min(level[number], lowest.get(keys[number], level[number]))
        # Of names that collide, those without an extension yield to those that have it already.
        again = [number for number in movable if level[number] == lowest[keys[number]]]
        if not again:
            return [names[at] for names, at in zip(choices, level, strict=True)]
        for number in again:
            level[number] += 1


def _list_choices(path: Path, within: Path) -> list[str]:
    """Return the names that a slide might have, best first; the last one is its alone."""
    names = (
        within.with_suffix("").as_posix(),
        within.as_posix(),
        _tag(within, os.path.realpath(path)),
        _tag(within, os.path.abspath(path)),
    )
    return [_shorten(name) for name in names]


def _leave_free(within: Path, path: Path, names: Sequence[str], known: Known) -> list[str]:
    """Return those of a slide's names that no other has; the last one stays its alone."""
    free = [name for name in names if not known.is_taken(name)]
    if free and free[-1] == names[-1]:
        return free
    # The slide that was at this path has moved, and kept its name.
    others = (_shorten(_tag(within, f"{os.path.abspath(path)}\n{n}")) for n in count(2))
    return [*free, next(name for name in others if not known.is_taken(name))]


def _tag(within: Path, text: str) -> str:
    return f"{within.as_posix()}-{_hash(text)}"


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


def fold_name(name: str) -> str:
    """Return a key that is equal for names that some file systems do not distinguish."""
    return unicodedata.normalize("NFC", name).casefold()
