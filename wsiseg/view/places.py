"""The suggested places of the slides that are shown, and which of them are labelled.

A place is labelled if an area that was drawn, changed or checked in the viewer reaches into its
frame; a deleted region labels nothing, as it says only what is not there.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import shapely
from shapely.geometry.base import BaseGeometry

from wsiseg.errors import DataError, GeoJsonError, StoreError
from wsiseg.labels.cover import corner_of
from wsiseg.places import Place, read_places
from wsiseg.store import SlideStore
from wsiseg.suggest import map_of
from wsiseg.table import list_problems
from wsiseg.text import escape
from wsiseg.view.collection import Entry
from wsiseg.view.corrections import Corrections
from wsiseg.view.features import read_correction

__all__ = ["Places", "find_places"]

_LOG = logging.getLogger(__name__)

_RIM = 0.01
"""Share of a frame's sides that an area may reach over its edge: neighbours are often drawn to."""
_LABELS = ("reclassified", "drawn", "checked")


class Places:
    """Suggested places by slide."""

    def __init__(self, places: Sequence[Place] = ()) -> None:
        self._by_slide: defaultdict[str, list[Place]] = defaultdict(list)
        for place in places:
            self._by_slide[place.slide].append(place)
        self._areas: dict[Path, tuple[object, shapely.STRtree]] = {}

    @property
    def slides(self) -> list[str]:
        """The names of the slides."""
        return list(self._by_slide)

    def on(self, entry: Entry) -> list[Place]:
        """Return the places on a slide, by rank."""
        return self._by_slide.get(_name_in_table(entry), [])

    def labelled(self, entry: Entry) -> set[int]:
        """Return the ranks of a slide's places that are labelled."""
        places = self.on(entry)
        if not places:
            return set()
        hits, _ = self._tree(entry).query([_inside(place) for place in places], "intersects")
        return {places[int(index)].rank for index in hits}

    def _tree(self, entry: Entry) -> shapely.STRtree:
        """Return the areas in a slide's corrections, read again only if the file has changed."""
        path = entry.corrections
        try:
            facts = path.stat()
            stamp = facts.st_mtime_ns, facts.st_size, facts.st_ino
        except OSError:
            return shapely.STRtree([])
        known = self._areas.get(path)
        if known is None or known[0] != stamp:
            known = self._areas[path] = stamp, shapely.STRtree(_read_areas(entry))
        return known[1]


def find_places(folder: str | Path, entries: Sequence[Entry]) -> Places:
    """Read the places that `wsiseg suggest` wrote; warn of those on slides that are not shown.

    Raises
    ------
    DataError
        If they cannot be read, or none of them is on a slide of `entries` that has a map.
    """
    places = Places(read_places(folder))
    shown = {_name_in_table(entry) for entry in entries if entry.store is not None}
    absent = [name for name in places.slides if name not in shown]
    if len(absent) == len(places.slides):
        raise DataError(
            f"{folder}: no place is on a slide that is shown; give the places that "
            f"`wsiseg suggest` chose for this output. They are on:{list_problems(absent)}"
        )
    if absent:
        _LOG.warning(
            "%s: places on slides that are not shown are left out:%s",
            folder, list_problems(absent),
        )  # fmt: skip
    _warn_of_other_maps(folder, places, entries)
    return places


def _warn_of_other_maps(folder: str | Path, places: Places, entries: Sequence[Entry]) -> None:
    """Warn of slides whose map is not the one that their places were chosen on."""
    shown: defaultdict[str, set[str]] = defaultdict(set)  # slides may be in two runs
    for entry in entries:
        if any(place.map for place in places.on(entry)):
            shown[entry.name].add(_map_of(entry))
    others = [
        entry.name for entry in entries
        if entry.name in shown
        and not {place.map for place in places.on(entry)} <= shown[entry.name]
    ]  # fmt: skip
    if others:
        _LOG.warning(
            "%s: the places were chosen on other maps than are shown, so their labels may be in "
            "another output; choose new ones with `wsiseg suggest`. This is so on:%s",
            folder, list_problems(list(dict.fromkeys(others))),
        )  # fmt: skip


def _map_of(entry: Entry) -> str:
    """Return the map of a slide as `wsiseg suggest` knows it; empty if there is none."""
    if entry.store is None:
        return ""
    with suppress(StoreError):
        return map_of(SlideStore(entry.store))
    return ""


def _name_in_table(entry: Entry) -> str:
    return escape(entry.name).strip()


def _inside(place: Place) -> BaseGeometry:
    across, down = _RIM * place.width, _RIM * place.height
    right, bottom = place.x + place.width, place.y + place.height
    return shapely.box(place.x + across, place.y + down, right - across, bottom - down)


def _read_areas(entry: Entry) -> list[BaseGeometry]:
    """Read the areas that label, in QuPath's pixels, as places are.

    There are none in a file that cannot be read, which its slide reports.
    """
    if entry.store is None:
        return []
    try:
        corner = corner_of(SlideStore(entry.store))
        features = Corrections(entry.corrections, {"origin": list(corner)}, corner).features()
    except (GeoJsonError, StoreError):
        return []
    read = filter(None, map(read_correction, features))
    return [shapely.make_valid(one.shape) for one in read if one.kind in _LABELS]
