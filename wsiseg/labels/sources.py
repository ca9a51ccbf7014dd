"""Find label files, read them, and assign them to their slides."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wsiseg.errors import DataError
from wsiseg.labels.corrections import find_corrected, own_exports
from wsiseg.labels.geojson import GEOJSON, read_geojson_marks
from wsiseg.labels.manifest import Manifest
from wsiseg.labels.mark import Drawn
from wsiseg.labels.regions_table import holds_regions, read_regions
from wsiseg.labels.stores import Names
from wsiseg.labels.xml import read_xml_marks
from wsiseg.slide import SLIDE_SUFFIXES
from wsiseg.store import SlideStore

__all__ = ["Sources", "find_files", "read_sources"]

TABLES = (".csv", ".tsv", ".txt")
_XML = (".xml",)
_SUFFIXES = (*GEOJSON, *_XML, *TABLES)
_EDITED = re.compile(r"\.edited(\d*)$")  # as `wsiseg annotate` names edited files
_SERIES = re.compile(  # QuPath's name of one image of several in a file
    rf"(?i)({'|'.join(map(re.escape, sorted(SLIDE_SUFFIXES)))}) - .*$"
)


@dataclass
class Sources:
    """The contents of the files, by number of the store."""

    drawn: dict[int, list[tuple[Path, Drawn]]] = field(default_factory=dict)
    tables: list[Path] = field(default_factory=list)
    """Tables of tiles, read later when the classes are known."""
    unmatched: list[str] = field(default_factory=list)
    """Files, and slides in tables, without a store."""
    problems: list[str] = field(default_factory=list)

    def add(self, at: int, path: Path, drawn: Drawn) -> None:
        """Add the labels of a store in `path`."""
        self.drawn.setdefault(at, []).append((path, drawn))


def find_files(paths: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield label files, each with the folder that it was found through, sorted by name.

    Raises
    ------
    DataError
        If a path does not exist, or is a file of unknown kind.
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
            raise DataError(f"{path}: is of unknown kind; known are {', '.join(_SUFFIXES)}")


def _prefer_edited(paths: Sequence[Path]) -> list[Path]:
    """Leave out GeoJSON files of which there is a later edited version."""
    latest: dict[Path, int] = {}
    for path in paths:
        stem, number = _split_edited(path)
        latest[path.parent / stem] = max(number, latest.get(path.parent / stem, 0))
    return [path for path in paths if _is_latest(path, latest)]


def _is_latest(path: Path, latest: Mapping[Path, int]) -> bool:
    stem, number = _split_edited(path)
    return not path.name.lower().endswith(GEOJSON) or number == latest[path.parent / stem]


def _split_edited(path: Path) -> tuple[str, int]:
    """Split a name into stem and number of the edit: ``a.edited2.geojson`` is a, 2."""
    suffix = max((s for s in _SUFFIXES if path.name.lower().endswith(s)), key=len, default="")
    stem = path.name[: len(path.name) - len(suffix)]
    mark = _EDITED.search(stem)
    return (stem, 0) if mark is None else (stem[: mark.start()], int(mark[1] or 1))


def _walk(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder except hidden ones, such as kept maps."""
    for top, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(top, name) for name in names if not name.startswith("."))


def read_sources(
    paths: Sequence[Path], stores: Sequence[SlideStore], names: Names, manifest: Manifest | None
) -> Sources:
    """Read every label file; record those that cannot be read or belong to no slide."""
    sources = Sources()
    single_files = [path for path in paths if path.is_file()]
    for path, root in find_files(paths):
        try:
            _read_file(path, root, stores, names, manifest, sources, alone=path in single_files)
        except DataError as error:
            sources.problems.append(str(error))
    return sources


def _read_file(
    path: Path, root: Path, stores: Sequence[SlideStore], names: Names,
    manifest: Manifest | None, sources: Sources, *, alone: bool,
) -> None:  # fmt: skip
    lower = path.name.lower()
    if manifest is not None and path.resolve() == manifest.path.resolve():
        return
    if lower.endswith(TABLES):
        if not holds_regions(path):
            sources.tables.append(path)
            return
        for slide, drawn in read_regions(path).items():
            at = names.find(slide)
            if at is None:
                sources.unmatched.append(f"{path}: {names.explain(slide)}")
            else:
                sources.add(at, path, drawn)
        return
    at = None if manifest is None else manifest.find(path)
    at = _match(path, root, stores, names) if at is None else at
    if at is None and alone and len(stores) == 1:
        at = 0  # one file for one slide needs no name
    if at is None:
        sources.unmatched.append(f"{path}: {names.explain(_stems(path)[-1])}")
        return
    if lower.endswith(_XML):
        sources.add(at, path, read_xml_marks(path))
    else:
        sources.add(at, path, read_geojson_marks(path, own_exports(stores[at])))


def _match(path: Path, root: Path, stores: Sequence[SlideStore], names: Names) -> int | None:
    """Find the store of a file named after its slide, with or without the slide's extension."""
    folders = path.relative_to(root).parent.parts
    for stem in _stems(path):
        at = find_corrected(path, stem, stores)
        at = names.find(stem, folders) if at is None else at
        if at is not None:
            return at
    return None


def _stems(path: Path) -> list[str]:
    """Return the name of a file without endings, then without that of an image in the slide."""
    stem = _split_edited(path)[0]
    return list(dict.fromkeys((stem, _SERIES.sub(r"\1", stem))))
