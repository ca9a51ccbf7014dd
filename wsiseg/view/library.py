"""The slides that are open: few at a time, opened when they are looked at."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from wsiseg.compute import SerialExecutor
from wsiseg.config import Config
from wsiseg.errors import DataError, StoreError
from wsiseg.outline import outline_regions
from wsiseg.view.collection import Entry, Run
from wsiseg.view.corrections import Corrections
from wsiseg.view.regions import Regions, outlined_regions, read_regions
from wsiseg.view.scene import Scene

__all__ = ["Library", "Shown", "UnknownSlideError"]

_MOST_OPEN = 3


class UnknownSlideError(DataError):
    """No slide has that id."""


class Shown:
    """A slide that is open, its regions and its corrections."""

    def __init__(self, entry: Entry, slides: Path | None) -> None:
        if entry.store is None:
            raise StoreError(f"{entry.name}: has no store: {entry.error or entry.status}")
        self.entry = entry
        self.scene = Scene(entry.store, slides)
        self.users, self.dropped = 0, False
        self._lock = threading.Lock()
        self._regions: Regions | None = None

    @property
    def regions(self) -> Regions:
        """Its regions, read when first asked for: the run's, or outlined anew if it wrote none.

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
            found = read_regions(self.entry.geojson)
            # Those of an earlier map are not what the labels show.
            if found.facts.get("labels") in (None, self.scene.labelled):
                return found
        return outlined_regions(outline_regions(self.scene.store.path, Config(), SerialExecutor()))

    @cached_property
    def origin(self) -> tuple[float, float]:
        """Level-0 point that is (0, 0) in the files of regions and corrections."""
        noted = self.regions.facts.get("origin")
        x, y = noted if noted else self.scene.store.slide["bounds"][:2]
        return float(x), float(y)

    @cached_property
    def corrections(self) -> Corrections:
        """What was corrected."""
        facts = {
            "slide": self.scene.store.slide.get("name", self.entry.name),
            "labels": self.scene.labelled,
            "origin": list(self.origin),
        }
        return Corrections(self.entry.corrections, facts)

    def to_file(self, x: float, y: float) -> tuple[float, float]:
        """A point of the frame in the pixels of those files."""
        (fx, fy), (ox, oy) = self.scene.to_px0, self.origin
        return x * fx - ox, y * fy - oy

    def to_frame(self, x: Any, y: Any) -> tuple[Any, Any]:
        """The way back, for numbers or arrays."""
        (fx, fy), (ox, oy) = self.scene.to_px0, self.origin
        return (x + ox) / fx, (y + oy) / fy


class Library:
    """All runs that are shown, and the few slides of them that are open."""

    def __init__(self, runs: Sequence[Run], slides: Path | None = None) -> None:
        self.runs, self._slides = list(runs), slides
        self._lock = threading.Lock()
        self._open: OrderedDict[str, Shown] = OrderedDict()
        self._opening: dict[str, threading.Lock] = {}
        self._entries: dict[str, Entry] = {}
        self.list_entries()

    def list_entries(self) -> list[tuple[Run, list[Entry]]]:
        """The slides of each run, as they are now."""
        found = [(run, run.entries()) for run in self.runs]
        self._entries = {entry.id: entry for _, entries in found for entry in entries}
        return found

    def entry(self, identity: str) -> Entry:
        """The slide of that id; raises `UnknownSlideError`."""
        try:
            return self._entries[identity]
        except KeyError:
            raise UnknownSlideError("no slide has that id") from None

    @contextmanager
    def borrow(self, identity: str, *, afresh: bool = False) -> Iterator[Shown]:
        """The slide of that id, open while the block runs.

        With `afresh` it is opened again if its store has changed.

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
        # Once, while other slides are shown.
        with self._opening.setdefault(identity, threading.Lock()):
            shown = self._lend(identity)
            if shown is not None and (not afresh or shown.scene.is_current()):
                return shown
            if shown is not None:
                self._give_back(shown)
            fresh = Shown(entry, self._slides)
            with self._lock:
                if identity in self._open:
                    self._drop(self._open.pop(identity))
                self._open[identity] = fresh
                fresh.users += 1
                while len(self._open) > _MOST_OPEN:
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
        """Close it now, or when its last user gives it back."""
        shown.dropped = True
        if not shown.users:
            shown.scene.close()
