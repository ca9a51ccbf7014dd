"""Corrections of a finished map, with the outlines of our own file.

QuPath 0.6 and 0.7 lose area of large outlines when they export them, so a region of ours is taken
from the file that it came from, by its id. What a person checked and left is taken from there too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import shapely

from wsiseg.atomic import put_aside
from wsiseg.errors import GeoJsonError
from wsiseg.labels.cover import join
from wsiseg.labels.mark import Mark
from wsiseg.qupath import Feature, read_geojson
from wsiseg.store import SlideStore

__all__ = ["CORRECTIONS", "keep_corrected", "name_in_run", "own_exports", "resolve_regions"]

CORRECTIONS = "corrections"
"""The folder of an output folder into which corrections are exported."""
KEPT = ".maps"
"""Below it: the maps that were corrected, of which the output folder has newer ones."""
_FORMS = (".geojson", ".geojson.gz", ".parts")


def resolve_regions(
    path: Path, marks: Sequence[Mark], store: SlideStore, problems: list[str], notes: list[str]
) -> list[Mark]:
    """`marks` with the outlines of our own map, and what it shows in areas that were checked.

    Parameters
    ----------
    problems
        Takes in a map that is missing, if an area was checked in it.
    notes
        Takes in regions that no map holds any more: their outlines are those of `path`.
    """
    ours = [mark for mark in marks if mark.state in ("reclassified", "deleted", "checked")]
    if not ours:
        return list(marks)
    try:
        regions = _read_map(path, store, {m.region for m in ours if m.state != "checked"})
    except GeoJsonError as error:
        problems.append(str(error))
        return []
    if not regions and any(mark.state == "checked" for mark in ours):
        problems.append(
            f"{path}: checks a map that is not there: {store.path.stem}.geojson in the folder "
            f"geojson beside {path.parent}"
        )
        return []
    known = {feature.id: feature for feature in regions if feature.id}
    resolved, lost = [], 0
    for mark in marks:
        if mark.state not in ("reclassified", "deleted"):
            resolved.append(mark)
            continue
        if mark.region not in known:
            lost += 1
        resolved.append(_take_outline(mark, known.get(mark.region)))
    if lost:
        notes.append(
            f"{path}: {lost} regions are in no map of ours any more; their outlines are taken as "
            f"this file has them"
        )
    touched = {mark.region for mark in ours}
    return resolved + _accept(path, ours, [r for r in regions if r.id not in touched])


def _read_map(path: Path, store: SlideStore, wanted: set[str]) -> list[Feature]:
    """Regions of the map that `path` corrects: the first that holds all that are `wanted`."""
    best: list[Feature] = []
    for base in _places(path, store):
        regions = [one for part in _find_parts(base) for one in read_geojson(part)]
        if regions and wanted <= {one.id for one in regions}:
            return regions
        best = best or regions
    return best


def _places(path: Path, store: SlideStore) -> list[Path]:
    """Where that map may be, without extension: kept, of the run corrected, of the store's run."""
    name = re.sub(r"(?i)\.(geo)?json(\.gz)?$", "", path.name)
    places = [path.parent / KEPT / name]
    for folder in path.parents:
        if folder.name == CORRECTIONS:
            below = path.relative_to(folder).parent / name
            places += [folder / KEPT / below, folder.parent / "geojson" / below]
    return [*places, *_own_places(store)]


def _own_places(store: SlideStore) -> list[Path]:
    """Where `wsiseg annotate` wrote the map of the store ``OUT/slides/NAME.zarr``."""
    slides = _find_slides(store)
    return [] if slides is None else [slides.parent / "geojson" / name_in_run(store)]


def _find_slides(store: SlideStore) -> Path | None:
    """The folder of stores of an output folder."""
    parents = store.path.absolute().parents
    return next((folder for folder in parents if folder.name == "slides"), None)


def name_in_run(store: SlideStore) -> str:
    """What an output folder calls a slide: the folders below ``slides``, and its name."""
    slides, path = _find_slides(store), store.path.absolute().with_suffix("")
    return path.name if slides is None else path.relative_to(slides).as_posix()


def own_exports(store: SlideStore) -> list[Path]:
    """The files of the map of a store in an output folder; none if there are none."""
    return [part for base in _own_places(store) for part in _find_parts(base)]


def _find_parts(base: Path) -> list[Path]:
    """The files of a map, plain, packed or in parts: the latest form; none if there is none."""
    found = [base.with_name(base.name + suffix) for suffix in _FORMS]
    found = sorted((p for p in found if p.exists()), key=lambda p: p.stat().st_mtime)
    if not found:
        return []
    return sorted(found[-1].glob("*.geojson.gz")) if found[-1].is_dir() else [found[-1]]


def keep_corrected(root: Path, name: str) -> None:
    """Keep the map of a slide that is about to be made anew, if a person corrected it.

    Parameters
    ----------
    root, name
        The output folder, and the slide's name in it.
    """
    corrections = root / CORRECTIONS / f"{name}.geojson"
    if not corrections.exists():
        return
    for suffix in _FORMS:
        former = root / "geojson" / f"{name}{suffix}"
        if former.exists() and former.stat().st_mtime <= corrections.stat().st_mtime:
            kept = root / CORRECTIONS / KEPT / f"{name}{suffix}"
            kept.parent.mkdir(parents=True, exist_ok=True)
            if kept.exists():
                put_aside(kept)
            os.replace(former, kept)


def _take_outline(mark: Mark, region: Feature | None) -> Mark:
    """A deleted region says that its own class is not there."""
    if region is None:
        return mark
    name = (region.class_name or "") if mark.state == "deleted" else mark.name
    return replace(mark, name=name, geometry=region.geometry)


def _accept(path: Path, ours: Sequence[Mark], left: Sequence[Feature]) -> list[Mark]:
    """What our map shows in the areas that a person checked, and left as it was."""
    areas = [mark.geometry for mark in ours if mark.state == "checked"]
    if not areas:
        return []
    checked = join(areas)
    shapes = shapely.intersection([shapely.make_valid(one.geometry) for one in left], checked)
    return [
        Mark(one.class_name or "", shape, f"{path}: region {one.id}", "checked", one.id or "")
        for one, shape in zip(left, shapes, strict=True)
        if shape.area > 0 and one.class_name
    ]
