"""Find the slides to show: those of a run, of a folder of stores, or of one store."""

from __future__ import annotations

import csv
import hashlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wsiseg.errors import StoreError
from wsiseg.labels.corrections import CORRECTIONS, SLIDES, find_slides, is_output, name_below
from wsiseg.text import escape

__all__ = ["Entry", "Run", "open_run"]

_LOG = logging.getLogger(__name__)

_AREA = "_mm2"
_NOT_A_CLASS = "tissue_mm2"


@dataclass(frozen=True)
class Entry:
    """One slide of one run."""

    id: str
    """Identifies it in addresses; a hash, so that it cannot name a path."""
    name: str
    """Name in the run: the path of its outputs without extension."""
    root: Path
    """Output folder of the run, in which corrections are saved."""
    store: Path | None
    """None for a slide that failed before it had a store."""
    status: str
    """`done`, `no tissue` or `failed` from the run's table, or `not in a table`."""
    note: str = ""
    error: str = ""
    tissue_mm2: float | None = None
    class_mm2: dict[str, float] = field(default_factory=dict)

    @property
    def geojson(self) -> tuple[Path, ...]:
        """Files with its regions; empty if the run wrote none."""
        base = self.root / "geojson"
        for suffix in (".geojson", ".geojson.gz"):
            if (path := base / f"{self.name}{suffix}").is_file():
                return (path,)
        parts = base / f"{self.name}.parts"
        return tuple(sorted(parts.glob("*.geojson.gz"))) if parts.is_dir() else ()

    @property
    def corrections(self) -> Path:
        """File of its corrections, whether it exists or not."""
        return self.root / CORRECTIONS / f"{self.name}.geojson"


class Run:
    """The slides below one path: an output folder, its stores or some of them, or other stores.

    Raises
    ------
    StoreError
        If there is no output of wsiseg at `path`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        self.title = self.path.name
        self._store = _is_store(self.path)
        self._slides = self._find_slides()
        """The folder of stores of the output folder; None for stores elsewhere."""
        above = self.path.parent if self._store else self.path
        self.root = above if self._slides is None else self._slides.parent
        """The output folder, in which corrections are saved."""
        if not self._store and not self.entries():
            raise StoreError(
                f"{path}: contains no map; give the output folder of `wsiseg annotate`, a .zarr "
                f"store or a folder of stores"
            )
        self._warn_of_strays()

    def entries(self) -> list[Entry]:
        """List every slide by name: those with a store, and those that failed without one.

        Names are those in the output folder, also if the path is in the middle of it.
        """
        rows = _read_rows(self.root / "summary.csv")
        if self._store:
            name = name_below(self._slides, self.path)
            return [self._entry(name, self.path, rows.get(escape(name)))]
        base = self._slides or self.path
        folder = base if base.is_relative_to(self.path) else self.path
        stores = {name_below(base, path): path for path in _find_stores(folder)}
        below = "" if folder == base else escape(f"{folder.relative_to(base).as_posix()}/")
        listed = set(map(escape, stores))  # as the table has them
        failed = [name for name in rows.keys() - listed if name.startswith(below)]
        names = sorted({*stores, *failed}, key=str.casefold)
        return [self._entry(name, stores.get(name), rows.get(escape(name))) for name in names]

    def _find_slides(self) -> Path | None:
        """Find the folder of stores of the output folder that the path is, or lies in."""
        own, found = self.path / SLIDES, find_slides(self.path)
        sure = [one for one in (own, found) if one is not None and is_output(one.parent)]
        if own.is_dir() and (own in sure or not sure):
            return own
        # Farther up, any folder may have that name: one of slides themselves.
        near = self.path.parent if self._store else self.path
        return found if found in (*sure, near) else None

    def _warn_of_strays(self) -> None:
        """Tell of corrections among the stores, where earlier versions saved some."""
        if self._slides is None:
            return
        for folder in _find_strays(self._slides):
            here = self.root / CORRECTIONS / folder.parent.relative_to(self._slides)
            _LOG.warning(
                "%s: has corrections that are not shown, as an earlier version saved them there; "
                "move them to %s", folder, here,
            )  # fmt: skip

    def _entry(self, name: str, store: Path | None, row: dict[str, str] | None) -> Entry:
        key = hashlib.sha256(f"{self.path}\0{name}".encode("utf-8", "surrogatepass"))
        if row is None:
            return Entry(key.hexdigest()[:16], name, self.root, store, "not in a table")
        areas = {
            _class_of(column): value
            for column, text in row.items()
            if column.endswith(_AREA) and column != _NOT_A_CLASS
            if (value := _number(text)) is not None
        }
        return Entry(
            key.hexdigest()[:16], name, self.root, store,
            row.get("status", ""), row.get("note", ""), row.get("error", ""),
            _number(row.get(_NOT_A_CLASS, "")), areas,
        )  # fmt: skip


def open_run(path: str | Path) -> Run:
    """Open the run or the stores at `path`; see `Run`."""
    return Run(path)


def _is_store(path: Path) -> bool:
    return path.suffix == ".zarr" and (path / "zarr.json").is_file()


def _find_stores(folder: Path) -> Iterator[Path]:
    """Yield each store below `folder`, without descending into stores."""
    for place, folders in _walk(folder):
        yield from (place / name for name in folders if _is_store(place / name))


def _find_strays(slides: Path) -> Iterator[Path]:
    """Yield folders of corrections among the stores."""
    for place, _ in _walk(slides):
        if place.name == CORRECTIONS and any(place.rglob("*.geojson")):
            yield place


def _walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder from `folder` down, and the names of those in it, except in stores."""
    for place, folders, _ in os.walk(folder):
        yield Path(place), list(folders)
        folders[:] = [name for name in folders if not name.endswith(".zarr")]


def _read_rows(path: Path) -> dict[str, dict[str, str]]:
    """Read the rows of `summary.csv` by slide; empty if there is no such table."""
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            rows = [
                {k: _plain(v or "") for k, v in row.items() if k} for row in csv.DictReader(file)
            ]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, csv.Error) as error:
        raise StoreError(f"{path}: cannot be read ({error})") from error
    return {row["slide"]: row for row in rows if row.get("slide")}


def _class_of(column: str) -> str:
    """Return the class of a column of areas; that of a class `tissue` has another name."""
    plain = column.removeprefix("class ")
    return (plain if plain == _NOT_A_CLASS else column).removesuffix(_AREA)


def _plain(text: str) -> str:
    """Remove the apostrophe that keeps spreadsheets from reading a cell as a formula."""
    return text[1:] if text[:1] == "'" and text[1:2] in ("=", "+", "-", "@", "\t", "\r") else text


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value == value and abs(value) != float("inf") else None
