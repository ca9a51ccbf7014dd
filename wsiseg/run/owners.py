"""Which slide each store of an output folder is of, so that a slide keeps its name there."""

from __future__ import annotations

import json
import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from wsiseg.atomic import open_atomic
from wsiseg.errors import SlideOpenError, StoreError
from wsiseg.run.names import fold_name
from wsiseg.slide import identify_slide, was_identified_as
from wsiseg.store import SlideStore

__all__ = ["Owners", "read_reserved", "write_reserved"]

_HASH = re.compile(r"-[0-9a-f]{8}$")  # as `name_outputs` appends it

_Group = tuple[str, int | None]


class _Owner(NamedTuple):
    path: str
    """Absolute path of the slide when it was last annotated."""
    identity: str


class Owners:
    """The slides of the stores below a folder.

    The folder is listed once. A store is opened at most once, and only if its name is one that a
    slide of this run might have, in whichever sub-folder.

    Parameters
    ----------
    folder
        Holds the stores; it need not exist.
    reserved
        Absolute path of the slide that a run has given a name, which may have no store yet.
    """

    def __init__(self, folder: Path, reserved: Mapping[str, str] | None = None) -> None:
        self._folder, self._reserved = folder, reserved or {}
        self._folded: dict[str, list[str]] = defaultdict(list)
        self._alike: dict[str, list[str]] = defaultdict(list)
        for name in sorted({*_list_stores(folder), *self._reserved}):
            self._folded[fold_name(name)].append(name)
            self._alike[_key(name)].append(name)
        self._owners: dict[str, _Owner | None] = {}
        self._at: dict[str, list[str]] = defaultdict(list)
        self._groups: dict[_Group, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        self._grouped: set[str] = set()
        self._kept: set[str] = set()

    def keep(self, slides: Sequence[tuple[Path, Sequence[str]]]) -> list[str | None]:
        """Return the name that each slide has here already; None for those that have none.

        A slide is known by its path. Whichever is not is known by its content, among the stores of
        such a name whose own slide has gone, or is a file of the same size: the slides were moved,
        copied, or are reached by another path.

        Parameters
        ----------
        slides
            Path of each slide, and the names that it might have.
        """
        kept = [self._claim(self._find_path(path, names)) for path, names in slides]
        for number, (path, names) in enumerate(slides):
            if kept[number] is None:
                kept[number] = self._claim(self._find_content(path, names))
        return kept

    def is_taken(self, name: str) -> bool:
        """Whether a slide has that name, even if only case differs."""
        return any(self._read(each) is not None for each in self._folded.get(fold_name(name), ()))

    def _claim(self, name: str | None) -> str | None:
        if name is not None:
            self._kept.add(name)
        return name

    def _find_path(self, path: Path, names: Sequence[str]) -> str | None:
        own = _normalize(os.path.abspath(path))
        for name in self._present(names):
            owner = self._read(name)
            if owner is not None and _normalize(owner.path) == own and name not in self._kept:
                return name
        for key in dict.fromkeys(map(_key, names)):
            for name in self._alike.get(key, ()):
                self._read(name)
        return next((name for name in self._at.get(own, ()) if name not in self._kept), None)

    def _find_content(self, path: Path, names: Sequence[str]) -> str | None:
        size = _measure(path)
        keys = dict.fromkeys(map(_key, names))
        groups = [self._group(key, of) for key in keys for of in (None, size)]
        if size is None or not any(groups):
            return None
        try:
            identity = identify_slide(path)
            return self._choose(groups, identity) or self._choose_former(groups, path, names)
        except SlideOpenError:
            return None  # its row will say why

    def _choose(self, groups: Sequence[Mapping[str, list[str]]], identity: str) -> str | None:
        alike = (name for group in groups for name in group.get(identity, ()))
        return next((name for name in alike if name not in self._kept), None)

    def _choose_former(
        self, groups: Sequence[Mapping[str, list[str]]], path: Path, names: Sequence[str]
    ) -> str | None:
        """Return a store of the slide that was made when identities were others."""
        identities = {name: key for group in groups for key, each in group.items() for name in each}
        for name in self._present(names):
            known = name in identities and name not in self._kept
            if known and was_identified_as(path, identities[name]):
                return name
        return None

    def _group(self, key: str, size: int | None) -> Mapping[str, list[str]]:
        """Return the stores of a key by identity: whose slide has that size; None if it is gone."""
        if key not in self._grouped:
            self._grouped.add(key)
            for name in self._alike.get(key, ()):
                owner = self._read(name)
                if owner is not None and name not in self._kept:
                    group = self._groups[key, _measure(Path(owner.path))]
                    group[owner.identity].append(name)
        return self._groups.get((key, size), {})

    def _present(self, names: Sequence[str]) -> Iterator[str]:
        return (each for name in names for each in self._folded.get(fold_name(name), ()))

    def _read(self, name: str) -> _Owner | None:
        """Return whose store it is; None if nothing says so."""
        if name not in self._owners:
            owner = _read_owner(self._folder / f"{name}.zarr") or self._find_reserved(name)
            self._owners[name] = owner
            if owner is not None:
                self._at[_normalize(owner.path)].append(name)
        return self._owners[name]

    def _find_reserved(self, name: str) -> _Owner | None:
        """Return the slide that waits for its turn in a run, unless it is gone."""
        slide = self._reserved.get(name)
        return None if slide is None or not os.path.lexists(slide) else _Owner(slide, "")


def read_reserved(path: Path) -> dict[str, str]:
    """Read which slide, by its absolute path, has which name; empty if nothing says so."""
    try:
        return {str(name): str(slide) for name, slide in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def write_reserved(path: Path, reserved: Mapping[str, str]) -> None:
    """Write what `read_reserved` reads; the file appears whole or not at all."""
    with open_atomic(path) as file:
        file.write(json.dumps(reserved, indent=0, sort_keys=True).encode())


def _read_owner(store: Path) -> _Owner | None:
    try:
        slide = SlideStore(store).slide
        return _Owner(str(slide["path"]), str(slide["identity"]))
    except (KeyError, OSError, StoreError):
        return None  # unfinished, damaged or of another version: `SlideStore.create` knows what


def _list_stores(folder: Path, below: str = "") -> Iterator[str]:
    """Yield the names of the stores in a folder, with their sub-folders."""
    try:
        with os.scandir(folder / below) as entries:
            folders = [entry.name for entry in entries if entry.is_dir()]
    except OSError:
        return  # none yet; or one that no store can be written to, which the slide's row will say
    for name in folders:
        if name.endswith(".zarr"):
            yield below + name.removesuffix(".zarr")
        elif not name.startswith("."):
            yield from _list_stores(folder, f"{below}{name}/")


def _key(name: str) -> str:
    """Return what names of one slide have in common: no sub-folder, and no hash of its path."""
    return _HASH.sub("", fold_name(name.rpartition("/")[2]))


def _normalize(path: str) -> str:
    return os.path.normcase(os.path.normpath(path))


def _measure(path: Path) -> int | None:
    """Return a file's size in bytes, 0 for a folder; None if there is nothing."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
