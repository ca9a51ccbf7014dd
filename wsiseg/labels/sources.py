"""Label files found, read, and given to the slides that they are about."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wsiseg.errors import DataError
from wsiseg.labels.corrections import own_exports
from wsiseg.labels.geojson import GEOJSON, read_geojson_marks
from wsiseg.labels.manifest import Manifest
from wsiseg.labels.mark import Drawn
from wsiseg.labels.regions_table import holds_regions, read_regions
from wsiseg.labels.stores import Names
from wsiseg.labels.xml import read_xml_marks
from wsiseg.store import SlideStore

__all__ = ["Sources", "find_files", "read_sources"]

TABLES = (".csv", ".tsv", ".txt")
_XML = (".xml",)
_SUFFIXES = (*GEOJSON, *_XML, *TABLES)
_EDITED = re.compile(r"\.edited(\d*)$")  # as `wsiseg annotate` names what somebody edited
_SERIES = re.compile(r"(\.\w{2,5}) - .*$")  # QuPath's name of one image of several in a file


@dataclass
class Sources:
    """What the files say, by number of the store."""

    drawn: dict[int, list[tuple[Path, Drawn]]] = field(default_factory=dict)
    tables: list[Path] = field(default_factory=list)
    """Tables of tiles, which are read when the classes are known."""
    unmatched: list[str] = field(default_factory=list)
    """Files, and slides in tables, that no store is of."""
    problems: list[str] = field(default_factory=list)

    def add(self, at: int, path: Path, drawn: Drawn) -> None:
        """Keep what `path` says of a store."""
        self.drawn.setdefault(at, []).append((path, drawn))


def find_files(paths: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Label files and the folder that each was found through, in order of name.

    Raises
    ------
    DataError
        If a path does not exist, or is a file of no kind that can be read.
    """
    for path in paths:
        if path.is_dir():
            inside = _prefer_edited(sorted(_walk(path)))
            yield from ((one, path) for one in inside if one.name.lower().endswith(_SUFFIXES))
        elif not path.exists():
            raise DataError(f"{path}: does not exist; give label files or a folder of them")
        elif path.name.lower().endswith(_SUFFIXES):
            yield path, path.parent
        else:
            raise DataError(f"{path}: is of no known kind; known are {', '.join(_SUFFIXES)}")


def _prefer_edited(paths: Sequence[Path]) -> list[Path]:
    """Without GeoJSON of a run, where somebody edited it since: then the latest of those."""
    latest: dict[Path, int] = {}
    for path in paths:
        stem, number = _split_edited(path)
        latest[path.parent / stem] = max(number, latest.get(path.parent / stem, 0))
    return [path for path in paths if _is_latest(path, latest)]


def _is_latest(path: Path, latest: Mapping[Path, int]) -> bool:
    stem, number = _split_edited(path)
    return not path.name.lower().endswith(GEOJSON) or number == latest[path.parent / stem]


def _split_edited(path: Path) -> tuple[str, int]:
    """Name without suffix and mark, and how often it was edited: ``a.edited2.geojson`` is a, 2."""
    suffix = max((s for s in _SUFFIXES if path.name.lower().endswith(s)), key=len, default="")
    stem = path.name[: len(path.name) - len(suffix)]
    mark = _EDITED.search(stem)
    return (stem, 0) if mark is None else (stem[: mark.start()], int(mark[1] or 1))


def _walk(folder: Path) -> Iterator[Path]:
    """All files below a folder, but for hidden ones, such as the maps that were corrected."""
    for top, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(top, name) for name in names if not name.startswith("."))


def read_sources(
    paths: Sequence[Path], stores: Sequence[SlideStore], names: Names, manifest: Manifest | None
) -> Sources:
    """Read every label file; what cannot be read or fits no slide is kept as such."""
    found = Sources()
    single = [path for path in paths if path.is_file()]
    for path, root in find_files(paths):
        try:
            _read_file(path, root, stores, names, manifest, found, alone=path in single)
        except DataError as error:
            found.problems.append(str(error))
    return found


def _read_file(
    path: Path, root: Path, stores: Sequence[SlideStore], names: Names,
    manifest: Manifest | None, found: Sources, *, alone: bool,
) -> None:  # fmt: skip
    lower = path.name.lower()
    if manifest is not None and path.resolve() == manifest.path.resolve():
        return
    if lower.endswith(TABLES):
        if not holds_regions(path):
            found.tables.append(path)
            return
        for slide, drawn in read_regions(path).items():
            at = names.find(slide)
            if at is None:
                found.unmatched.append(f"{path}: {names.explain(slide)}")
            else:
                found.add(at, path, drawn)
        return
    at = None if manifest is None else manifest.find(path)
    at = _match(path, root, names) if at is None else at
    if at is None and alone and len(stores) == 1:
        at = 0  # one file for one slide needs no name
    if at is None:
        found.unmatched.append(f"{path}: {names.explain(_stem(path))}")
        return
    if lower.endswith(_XML):
        found.add(at, path, read_xml_marks(path))
    else:
        found.add(at, path, read_geojson_marks(path, own_exports(stores[at])))


def _match(path: Path, root: Path, names: Names) -> int | None:
    """The store of a file named as the slide, with the slide's extension or without."""
    return names.find(_stem(path), path.relative_to(root).parent.parts)


def _stem(path: Path) -> str:
    return _SERIES.sub(r"\1", _split_edited(path)[0])
