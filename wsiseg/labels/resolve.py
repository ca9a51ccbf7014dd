"""Corrections of finished maps, combined with the outlines of the maps' own files.

QuPath 0.6 and 0.7 lose parts of large outlines on export, so our own regions are looked up by id in
the file that they came from. So are regions that a person checked and left unchanged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import shapely

from wsiseg.annotations import UNSURE
from wsiseg.config import LabelConfig
from wsiseg.errors import DataError, GeoJsonError
from wsiseg.labels.corrections import find_maps
from wsiseg.labels.cover import join, origin_of
from wsiseg.labels.mark import Drawn, Mark
from wsiseg.labels.placement import keep_polygons
from wsiseg.labels.sources import Sources
from wsiseg.qupath import Feature, Origin, move_features, read_facts, read_origin
from wsiseg.qupath.form.stamp import read_head
from wsiseg.store import SlideStore

__all__ = ["LabelFile", "LabelFiles", "list_marks", "resolve_files"]

_OF_REGIONS = ("reclassified", "deleted")
"""Corrections that are about a region of a map, whose id they have."""


class _Map:
    """A map that corrections may be about; read when it is first asked for.

    Its regions are in the pixels of a file whose origin is `target`, whatever its own is.
    """

    def __init__(
        self, files: Sequence[Path], store: SlideStore, config: LabelConfig, target: Origin
    ) -> None:
        self.files, self._target = files, target
        self._origin_of = partial(origin_of, store, config)

    @cached_property
    def labels(self) -> str:
        """Digest of its labels; empty if another program wrote its file."""
        return str(read_head(self.files[0]).get("labels", ""))

    @cached_property
    def regions(self) -> list[Feature]:
        """Its regions."""
        regions: list[Feature] = []
        for file in self.files:
            features, facts = read_facts(file)
            origin = self._origin_of(read_origin(facts, file))
            regions += move_features(features, origin, self._target)
        return regions

    @cached_property
    def by_id(self) -> dict[str, Feature]:
        """Its regions by id."""
        return {region.id: region for region in self.regions if region.id}


class LabelFile(NamedTuple):
    """A file of labels of one slide."""

    path: Path
    drawn: Drawn
    """What it holds."""
    marks: list[Mark]
    """The same, its corrections with the outlines of our maps."""


LabelFiles = Mapping[int, Sequence[LabelFile]]
"""By number of the store."""


def resolve_files(
    sources: Sources, stores: Sequence[SlideStore], config: LabelConfig, problems: list[str],
    notes: list[str],
) -> LabelFiles:  # fmt: skip
    """Combine corrections with the maps that they are about; leave out files of which none is."""
    files: dict[int, list[LabelFile]] = {}
    for at, drawn in sources.drawn.items():
        for path, one in drawn:
            try:
                marks = _resolve_regions(path, one, stores[at], config, notes)
            except DataError as error:
                problems.append(str(error))
            else:
                files.setdefault(at, []).append(LabelFile(path, one, marks))
    return files


def list_marks(files: LabelFiles) -> Iterator[Mark]:
    """Yield what is marked in all files."""
    yield from (m for of_slide in files.values() for file in of_slide for m in file.marks)


def _resolve_regions(
    path: Path, drawn: Drawn, store: SlideStore, config: LabelConfig, notes: list[str]
) -> list[Mark]:
    """Return the marks in `path` with the outlines of our maps, whose regions in checked areas too.

    All are in the pixels of `path`, also where a map has another origin.

    Each correction is about the map that it was made on: a region that was changed or deleted is
    looked up by its id, and a checked area says which map was checked.

    Parameters
    ----------
    notes
        Receives a message about regions that no map contains any more, which keep the outlines in
        `path`, and about checked areas that may be about several maps.

    Raises
    ------
    DataError
        If an area was checked and its map is missing, or a map cannot be read.
    """
    marks = drawn.marks
    changed = {mark.region for mark in marks if mark.state in _OF_REGIONS}
    checked = [mark for mark in marks if mark.state == "checked"]
    if not changed and not checked:
        return list(marks)
    target = origin_of(store, config, drawn.origin)
    maps = [_Map(files, store, config, target) for files in find_maps(path, store)]
    try:
        regions = _find_regions(changed, maps)
        accepted = [
            mark
            for own, chosen in _choose_maps(path, checked, changed, maps, store, notes)
            for mark in _accept(path, own, [r for r in chosen.regions if r.id not in changed])
        ]
    except GeoJsonError as error:
        raise DataError(str(error)) from error
    lost = sum(mark.state in _OF_REGIONS and mark.region not in regions for mark in marks)
    if lost:
        notes.append(
            f"{path}: {lost} regions are no longer in any map; their outlines are taken from this "
            f"file"
        )
    own = [
        _take_outline(mark, regions.get(mark.region)) if mark.state in _OF_REGIONS else mark
        for mark in marks
        if mark.state != "checked"
    ]
    return [mark for mark in own if mark.name != UNSURE or mark.state != "deleted"] + accepted


def _find_regions(wanted: Collection[str], maps: Sequence[_Map]) -> dict[str, Feature]:
    """Look regions up by id, each in the first map that has it."""
    regions: dict[str, Feature] = {}
    for one in maps:
        missing = [identity for identity in wanted if identity not in regions]
        if not missing:
            break
        regions |= {each: one.by_id[each] for each in missing if each in one.by_id}
    return regions


def _take_outline(mark: Mark, region: Feature | None) -> Mark:
    """Apply a region's outline to its mark; a deleted region negates its own class."""
    if region is None:
        return mark
    name = (region.class_name or "") if mark.state == "deleted" else mark.name
    return replace(mark, name=name, geometry=region.geometry)


# -- checked areas --------------------------------------------------------------------------------


def _choose_maps(
    path: Path, checked: Sequence[Mark], changed: Collection[str], maps: Sequence[_Map],
    store: SlideStore, notes: list[str],
) -> list[tuple[list[Mark], _Map]]:  # fmt: skip
    """Find the map that each checked area is about.

    Of several that may be meant, it is the first that has most of the `changed` regions.
    """
    groups = defaultdict[str, list[Mark]](list)
    for mark in checked:
        groups[mark.of_map].append(mark)
    chosen = []
    for digest, own in groups.items():
        fitting = [one for one in maps if (one.labels == digest if digest else one.regions)]
        if not fitting:
            raise DataError(f"{path}: {_tell_missing(path, own, digest, store)}")
        shared = [len(changed & one.by_id.keys()) for one in fitting]
        likely = [one for one, n in zip(fitting, shared, strict=True) if n == max(shared)]
        if any(one.by_id.keys() != likely[0].by_id.keys() for one in likely) and not digest:
            notes.append(
                f"{path}: {len(own)} checked area(s) do not say which of {len(likely)} maps was "
                f"checked; {likely[0].files[0]} is taken"
            )
        chosen.append((own, likely[0]))
    return chosen


def _tell_missing(path: Path, own: Sequence[Mark], digest: str, store: SlideStore) -> str:
    """Say that the map of checked areas is missing, and what helps."""
    if not digest:
        return (
            f"has checked areas, but the map is missing: {store.path.stem}.geojson in the folder "
            f"geojson beside {path.parent}"
        )
    return (
        f"{len(own)} checked area(s) are about a map that is not there any more (labels "
        f"{digest[:8]}): delete them, look at the map that is there now, and check it anew"
    )


def _accept(path: Path, checked: Sequence[Mark], unchanged: Sequence[Feature]) -> list[Mark]:
    """Return checked areas, and the map's regions in them that a person left unchanged.

    Where the map is unsure and was left so, nothing is known: that is cut out of the areas.
    """
    whole = join([mark.geometry for mark in checked])
    shapes = shapely.intersection([shapely.make_valid(one.geometry) for one in unchanged], whole)
    kept = [
        (one, keep_polygons(shape))
        for one, shape in zip(unchanged, shapes, strict=True)
        if shape.area > 0 and one.class_name
    ]
    unsure = [shape for one, shape in kept if one.class_name == UNSURE]
    return _cut_out(checked, unsure) + [
        Mark(one.class_name or "", shape, f"{path}: region {one.id}", "checked", one.id or "")
        for one, shape in kept
        if one.class_name != UNSURE
    ]


def _cut_out(areas: Sequence[Mark], shapes: Sequence[shapely.Geometry]) -> list[Mark]:
    """Return areas without `shapes`; those of which nothing is left are left out."""
    if not shapes:
        return list(areas)
    gone = join(shapes)
    parts = [keep_polygons(shapely.make_valid(m.geometry).difference(gone)) for m in areas]
    return [
        replace(mark, geometry=part)
        for mark, part in zip(areas, parts, strict=True)
        if not part.is_empty
    ]
