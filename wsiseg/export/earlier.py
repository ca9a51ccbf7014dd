"""What an earlier export left in a folder, beside the files that a later one writes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

__all__ = ["State", "describe_left", "list_files", "list_left", "list_written", "note_files"]

State = tuple[int, int]
"""A file's inode and time stamp in ns: every writer replaces files, which changes both."""

_EDITED = re.compile(r"\.edited\d*\.")
_MAX_NAMED = 3


def list_files(path: Path) -> list[Path]:
    """Return the files of an output: itself or, of a folder, those in it and in its ``images``.

    Deeper inside there may be outputs of another slide, whose name begins with this one's.
    """
    if not path.is_dir():
        return [path] if path.exists() else []
    return sorted(
        file for folder in (path, path / "images") for file in folder.glob("*") if file.is_file()
    )


def note_files(path: Path) -> dict[Path, State]:
    """Note the files of an output before it is written again."""
    return {file: _inspect(file) for file in list_files(path)}


def list_written(path: Path, before: Mapping[Path, State]) -> list[Path]:
    """Return those files of an output that were written since `before` was noted."""
    return [file for file in list_files(path) if before.get(file) != _inspect(file)]


def list_left(path: Path, written: Iterable[Path]) -> list[Path]:
    """Return files that lie beside the `written` ones and could be taken for theirs.

    That is, of the same kinds, except what was renamed because somebody had edited it.
    """
    written = set(written)
    kinds = {file.suffix for file in written}
    return [
        file
        for file in list_files(path)
        if file not in written and file.suffix in kinds and not _EDITED.search(file.name)
    ]


def describe_left(name: str, path: Path, left: list[Path]) -> tuple[str, ...]:
    """Describe in a sentence, if there are any, what `list_left` found in `path`, called `name`."""
    if not left:
        return ()
    names = ", ".join(file.relative_to(path).as_posix() for file in left[:_MAX_NAMED])
    more = f" and {len(left) - _MAX_NAMED} more" if len(left) > _MAX_NAMED else ""
    return (f"{name} also holds files that are not of this map: {names}{more}",)


def _inspect(path: Path) -> State:
    facts = path.stat()
    return facts.st_ino, facts.st_mtime_ns
