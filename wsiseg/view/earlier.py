"""The corrections of an earlier run, over a map that was made since: looked at, and kept.

Slides are matched by their names in the two runs, as `wsiseg compare` matches them, and must be the
same file. What a person *keeps* is copied into the corrections of the run that is shown; the
earlier run is only read.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import shapely

from wsiseg.annotations import Palette
from wsiseg.errors import DataError
from wsiseg.labels.corrections import CORRECTIONS
from wsiseg.labels.cover import corner_of, join
from wsiseg.store import SlideStore
from wsiseg.view.collection import Entry, Run, open_run
from wsiseg.view.corrections import Corrections
from wsiseg.view.features import (
    Feature,
    extend_palette,
    kind_of,
    make_feature,
    read_correction,
    take_area,
)
from wsiseg.view.library import Shown

__all__ = ["Earlier", "EarlierSlide", "copy_id", "open_earlier"]

_LOG = logging.getLogger(__name__)

_COPIES = uuid.UUID("5d1b7a52-6f0e-4c39-9a57-8f3b8d6a2e14")
"""Namespace of the ids of copies: of one correction there is one copy, whoever keeps it."""
_KEPT = ("drawn", "reclassified")
"""Kinds that are areas of a class whatever the map is, and are kept as drawn ones. What a checked
area or a deleted region says is about regions of the earlier map, and stays with it."""


class EarlierSlide(NamedTuple):
    """The corrections of one slide in the earlier run."""

    features: list[Feature]
    """In the pixels of the corrections of the run that is shown; of a region that got another
    class, what was not drawn over, as what is drawn counts before it."""
    note: str
    """Why there are none, or not all; empty if there is nothing to say."""


class Earlier:
    """The earlier run; without one, no slide has earlier corrections."""

    def __init__(self, run: Run | None = None) -> None:
        self.title = "" if run is None else run.title
        self._root = None if run is None else run.root
        self._entries = {} if run is None else {entry.name: entry for entry in run.entries()}

    @property
    def corrections(self) -> Path | None:
        """The folder of its corrections; None without a run, or before there is one."""
        folder = None if self._root is None else self._root / CORRECTIONS
        return folder if folder is not None and folder.is_dir() else None

    def find(self, entry: Entry) -> Entry | None:
        """Return the slide of that name in the earlier run, if it has a map there."""
        found = None if entry.root == self._root else self._entries.get(entry.name)
        return None if found is None or found.store is None else found

    def read(self, shown: Shown) -> EarlierSlide:
        """Read the earlier corrections of a slide, afresh, as they may change meanwhile.

        Raises
        ------
        GeoJsonError, StoreError
            If they, or the earlier map's store, cannot be read.
        """
        found = self.find(shown.entry)
        if found is None or found.store is None:
            own = shown.entry.root == self._root
            return EarlierSlide([], f"is {self.title} itself" if own else "has no such slide")
        store = SlideStore(found.store)
        if store.slide.get("identity") != shown.scene.store.slide.get("identity"):
            return EarlierSlide([], "has another slide of this name")
        facts = {"origin": list(shown.origin)}
        corrections = Corrections(found.corrections, facts, corner_of(store)).features()
        whole = [one for one in corrections if read_correction(one) is not None]
        damaged = sum(1 for one in corrections if kind_of(one)) - len(whole)
        features = list(_cut_drawn(whole))
        if damaged:
            return EarlierSlide(features, f"has {damaged} that cannot be read")
        return EarlierSlide(features, "" if features else "has no corrections of this slide")

    def copies(self, shown: Shown, ids: Sequence[str]) -> list[Feature]:
        """Make copies of earlier corrections, by their ids, for the run that is shown.

        Those that it has already, as somebody copied the file, are left out.

        Raises
        ------
        DataError
            If an id is of none that can be kept.
        """
        features = {str(one["id"]): one for one in self.read(shown).features}
        own = shown.corrections.features()
        there = {str(one.get("id")) for one in own}
        palette = extend_palette(shown.scene.palette.classes, [*own, *features.values()])
        for identity in ids:
            if identity not in features or copy_id(features[identity]) is None:
                raise DataError(
                    f"no earlier correction of this slide that can be kept has the id "
                    f"{identity[:80]}; load the page again"
                )
        return [_copy(features[one], palette) for one in ids if one not in there]


def open_earlier(path: str | Path, runs: Sequence[Run]) -> Earlier:
    """Open the earlier run at `path`, whose corrections are shown over the maps of `runs`.

    Raises
    ------
    StoreError
        If there is no output of wsiseg at `path`.
    DataError
        If it is the only run that is shown, or has no slide of the others.
    """
    run = open_run(path)
    shown = [entry for other in runs if other.root != run.root for entry in other.entries()]
    if not shown:
        raise DataError(
            f"{path}: is the output that is shown; give that of the earlier map to --earlier"
        )
    earlier = Earlier(run)
    common = [found for entry in shown if (found := earlier.find(entry))]
    if not common:
        raise DataError(
            f"{path}: has no map of a slide that is shown; give the output of the earlier map, "
            f"with the same names of slides"
        )
    if not any(found.corrections.is_file() for found in common):
        _LOG.warning("%s: has no corrections of the slides that are shown", path)
    return earlier


def copy_id(feature: Feature) -> str | None:
    """Return the id that a copy of an earlier correction has; None if it cannot be kept."""
    return str(uuid.uuid5(_COPIES, str(feature["id"]))) if kind_of(feature) in _KEPT else None


def _copy(feature: Feature, palette: Palette) -> Feature:
    shape = shapely.geometry.shape(feature["geometry"])
    area = take_area(shape)
    name = str(feature["properties"]["classification"]["name"])
    whole = shape if area is None else area  # points are kept, too
    return make_feature("drawn", whole, name, palette, copy_id(feature))


def _cut_drawn(features: Sequence[Feature]) -> Iterator[Feature]:
    """Yield the features, without what of the regions with another class was drawn over."""
    shapes = [shapely.geometry.shape(one["geometry"]) for one in features]
    kinds = [kind_of(one) for one in features]
    drawn = join([shape for shape, kind in zip(shapes, kinds, strict=True) if kind == "drawn"])
    for feature, shape, kind in zip(features, shapes, kinds, strict=True):
        if kind != "reclassified" or not shapely.intersects(shape, drawn):
            yield feature
        elif (rest := take_area(shapely.make_valid(shape).difference(drawn))) is not None:
            yield {**feature, "geometry": shapely.geometry.mapping(rest)}
