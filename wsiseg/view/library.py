"""Keep a few slides open, and open them on demand."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wsiseg.compute import SerialExecutor
from wsiseg.config import Config
from wsiseg.errors import DataError, StoreError
from wsiseg.labels.cover import corner_of
from wsiseg.outline import outline_regions
from wsiseg.qupath import Origin
from wsiseg.view.collection import Entry, Run
from wsiseg.view.corrections import Corrections
from wsiseg.view.regions import Regions, outlined_regions, read_regions
from wsiseg.view.scene import Scene

__all__ = ["Library", "OutdatedMapError", "Shown", "UnknownSlideError"]

_MAX_OPEN = 3


class UnknownSlideError(DataError):
    """There is no slide with that id."""


class OutdatedMapError(DataError):
    """The map that was asked about was made again since."""


class Shown:
    """An open slide with its regions and corrections."""

    def __init__(self, entry: Entry, slides: Path | None) -> None:
        if entry.store is None:
            raise StoreError(f"{entry.name}: has no store: {entry.error or entry.status}")
        self.entry = entry
        self.scene = Scene(entry.store, slides)
        self.users, self.dropped = 0, False
        # Of each slide its own: the lock of a `cached_property` is one for all, or none at all.
        self._lock = threading.RLock()
        self._regions: Regions | None = None
        self._corrections: Corrections | None = None

    @property
    def regions(self) -> Regions:
        """Its regions, loaded on first use: the run's, or outlined again if it wrote none.

        Raises
        ------
        WsisegError
            If they cannot be read, or there are no labels yet.
        """
        with self._lock:
            if self._regions is None:
                self._regions = self._load()
            return self._regions

    def _load(self) -> Regions:
        if self.entry.geojson:
            regions = read_regions(self.entry.geojson)
            # Regions of an earlier map do not match the labels.
            if regions.facts.get("labels") in (None, self.scene.labelled):
                return regions
        return outlined_regions(outline_regions(self.scene.store.path, Config(), SerialExecutor()))

    @property
    def corner(self) -> Origin:
        """Level-0 position of (0, 0) in QuPath: the corner of the slide's bounds."""
        return corner_of(self.scene.store)

    @property
    def origin(self) -> Origin:
        """Level-0 position of (0, 0) in the file of regions, and in that of corrections here."""
        # While a map is being made there are no regions, but areas may be drawn.
        stored = self.regions.origin if self.scene.labelled else None
        return self.corner if stored is None else stored

    @property
    def corrections(self) -> Corrections:
        """Its corrections: the same for all threads, as what can be undone is kept with them."""
        with self._lock:
            if self._corrections is None:
                facts = {
                    "slide": self.scene.store.slide.get("name", self.entry.name),
                    "labels": self.scene.labelled,
                    "origin": list(self.origin),
                }
                self._corrections = Corrections(self.entry.corrections, facts, self.corner)
            return self._corrections

    def is_map(self, version: str = "") -> bool:
        """Whether its map is still what was opened, and that of `version` if one is given."""
        return version in ("", self.scene.version) and self.scene.is_current()

    def expect(self, version: str = "") -> None:
        """Raise `OutdatedMapError` unless `is_map`."""
        if not self.is_map(version):
            raise OutdatedMapError("the map was made again since it was opened: load it again")

    def to_file(self, x: float, y: float) -> tuple[float, float]:
        """Convert a point of the frame to the pixels of these files."""
        (fx, fy), (ox, oy) = self.scene.to_px0, self.origin
        return x * fx - ox, y * fy - oy

    def to_frame(self, x: Any, y: Any, origin: Origin | None = None) -> tuple[Any, Any]:
        """Convert numbers or arrays from these files' pixels, or another origin's, to the frame."""
        (fx, fy), (ox, oy) = self.scene.to_px0, self.origin if origin is None else origin
        return (x + ox) / fx, (y + oy) / fy


class Library:
    """All runs that are shown, and the few slides that are open."""

    def __init__(self, runs: Sequence[Run], slides: Path | None = None) -> None:
        self.runs, self._slides = list(runs), slides
        self._lock = threading.Lock()
        self._open: OrderedDict[str, Shown] = OrderedDict()
        self._opening: dict[str, threading.Lock] = {}
        self._entries: dict[str, Entry] = {}
        self.list_entries()

    def list_entries(self) -> list[tuple[Run, list[Entry]]]:
        """List the current slides of each run."""
        entries_by_run = [(run, run.entries()) for run in self.runs]
        self._entries = {entry.id: entry for _, entries in entries_by_run for entry in entries}
        return entries_by_run

    @property
    def entries(self) -> list[Entry]:
        """The slides of all runs, as they were listed last."""
        return list(self._entries.values())

    def entry(self, identity: str) -> Entry:
        """Return the slide with that id; raises `UnknownSlideError`."""
        try:
            return self._entries[identity]
        except KeyError:
            raise UnknownSlideError("no slide has that id") from None

    @contextmanager
    def borrow(self, identity: str, *, afresh: bool = False) -> Iterator[Shown]:
        """Keep the slide with that id open while the block runs.

        With `afresh`, open it again if its store has changed.

        Raises
        ------
        UnknownSlideError
            If there is none.
        StoreError
            If it has no store, or one that cannot be read.
        """
        shown = self._take(identity, afresh)
        try:
            yield shown
        finally:
            self._give_back(shown)

    def close(self) -> None:
        """Release every slide."""
        with self._lock:
            while self._open:
                self._drop(self._open.popitem(last=False)[1])

    def _take(self, identity: str, afresh: bool) -> Shown:
        entry = self.entry(identity)
        if not afresh and (shown := self._lend(identity)):
            return shown
        # Open it once, without blocking other slides.
        with self._opening.setdefault(identity, threading.Lock()):
            shown = self._lend(identity)
            if shown is not None and (not afresh or shown.scene.is_current()):
                shown.entry = entry  # the table of the run may have been written since
                return shown
            if shown is not None:
                self._give_back(shown)
            fresh = Shown(entry, self._slides)
            with self._lock:
                if identity in self._open:
                    self._drop(self._open.pop(identity))
                self._open[identity] = fresh
                fresh.users += 1
                while len(self._open) > _MAX_OPEN:
                    self._drop(self._open.popitem(last=False)[1])
            return fresh

    def _lend(self, identity: str) -> Shown | None:
        with self._lock:
            shown = self._open.get(identity)
            if shown is not None:
                self._open.move_to_end(identity)
                shown.users += 1
            return shown

    def _give_back(self, shown: Shown) -> None:
        with self._lock:
            shown.users -= 1
            if shown.dropped and not shown.users:
                shown.scene.close()

    def _drop(self, shown: Shown) -> None:
        """Close it now, or when its last user returns it."""
        shown.dropped = True
        if not shown.users:
            shown.scene.close()
