"""Corrections of a finished map, combined with the outlines of the map's own file.

QuPath 0.6 and 0.7 lose parts of large outlines on export, so our own regions are looked up by id in
the file that they came from. So are regions that a person checked and left unchanged.
"""

from __future__ import annotations

import logging
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
from wsiseg.labels.placement import keep_polygons
from wsiseg.qupath import Feature, read_geojson
from wsiseg.store import SlideStore
from wsiseg.tissue import is_unused_edit

__all__ = [
    "CORRECTIONS",
    "find_corrected",
    "keep_corrected",
    "name_in_run",
    "own_exports",
    "resolve_regions",
    "warn_of_unused_outlines",
]

_LOG = logging.getLogger(__name__)

CORRECTIONS = "corrections"
"""The subfolder of an output folder for exported corrections."""
KEPT = ".maps"
"""Its subfolder for corrected maps that the output folder has replaced since."""
_FORMS = (".geojson", ".geojson.gz", ".parts")


def resolve_regions(
    path: Path, marks: Sequence[Mark], store: SlideStore, problems: list[str], notes: list[str]
) -> list[Mark]:
    """Return `marks` with the outlines of our map, plus its regions in areas that were checked.

    Parameters
    ----------
    problems
        Receives a message if an area was checked and its map is missing.
    notes
        Receives a message about regions that no map contains any more; these keep the outlines in
        `path`.
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
            f"{path}: has checked areas, but the map is missing: {store.path.stem}.geojson in the "
            f"folder geojson beside {path.parent}"
        )
        return []
    by_id = {feature.id: feature for feature in regions if feature.id}
    resolved, lost = [], 0
    for mark in marks:
        if mark.state not in ("reclassified", "deleted"):
            resolved.append(mark)
            continue
        if mark.region not in by_id:
            lost += 1
        resolved.append(_take_outline(mark, by_id.get(mark.region)))
    if lost:
        notes.append(
            f"{path}: {lost} regions are no longer in any map; their outlines are taken from this "
            f"file"
        )
    touched = {mark.region for mark in ours}
    return resolved + _accept(path, ours, [r for r in regions if r.id not in touched])


def _read_map(path: Path, store: SlideStore, wanted: set[str]) -> list[Feature]:
    """Read the map that `path` corrects: the first that contains all `wanted` regions."""
    best: list[Feature] = []
    for base in _places(path, store):
        regions = [region for part in _find_parts(base) for region in read_geojson(part)]
        if regions and wanted <= {region.id for region in regions}:
            return regions
        best = best or regions
    return best


def _places(path: Path, store: SlideStore) -> list[Path]:
    """List where the map may be, without extension: kept, in the run, in the store's run."""
    name = re.sub(r"(?i)\.(geo)?json(\.gz)?$", "", path.name)
    places = [path.parent / KEPT / name]
    for folder in path.parents:
        if folder.name == CORRECTIONS:
            below = path.relative_to(folder).parent / name
            places += [folder / KEPT / below, folder.parent / "geojson" / below]
    return [*places, *_own_places(store)]


def _own_places(store: SlideStore) -> list[Path]:
    """Return where `wsiseg annotate` writes the map of the store ``OUT/slides/NAME.zarr``."""
    slides = _find_slides(store)
    return [] if slides is None else [slides.parent / "geojson" / name_in_run(store)]


def _find_slides(store: SlideStore) -> Path | None:
    """Find the folder of stores in an output folder."""
    parents = store.path.absolute().parents
    return next((folder for folder in parents if folder.name == "slides"), None)


def name_in_run(store: SlideStore) -> str:
    """Return the name of a slide in an output folder: its path below ``slides``."""
    slides, path = _find_slides(store), store.path.absolute().with_suffix("")
    return path.name if slides is None else path.relative_to(slides).as_posix()


def find_corrected(path: Path, name: str, stores: Sequence[SlideStore]) -> int | None:
    """Return the number of the store whose map a file in ``OUT/corrections`` corrects.

    `name` is the file's without endings, which is the slide's name in the output folder: other
    slides of it may have that name too. None for files elsewhere.
    """
    path = path.absolute()
    for folder in path.parents:
        if folder.name == CORRECTIONS:
            store = folder.parent / "slides" / path.relative_to(folder).with_name(f"{name}.zarr")
            return next((at for at, s in enumerate(stores) if s.path.absolute() == store), None)
    return None


def warn_of_unused_outlines(stores: Sequence[SlideStore]) -> None:
    """Warn of tissue outlines beside `stores` that were edited and not read since.

    They are no labels, and who edits one may wonder where it counts.
    """
    for store in stores:
        slides = _find_slides(store)
        if slides is None:
            continue
        outline = slides.parent / "tissue" / f"{name_in_run(store)}.geojson"
        if is_unused_edit(store, outline):
            _LOG.warning(
                "%s: was edited, which changes nothing yet: run the `wsiseg annotate` of its slide "
                "again, which redoes what the edit changes", outline,
            )  # fmt: skip


def own_exports(store: SlideStore) -> list[Path]:
    """Find the files of a store's map in an output folder."""
    return [part for base in _own_places(store) for part in _find_parts(base)]


def _find_parts(base: Path) -> list[Path]:
    """Find the files of a map: the newest of its plain, compressed and split forms."""
    files = [base.with_name(base.name + suffix) for suffix in _FORMS]
    files = sorted((p for p in files if p.exists()), key=lambda p: p.stat().st_mtime)
    if not files:
        return []
    return sorted(files[-1].glob("*.geojson.gz")) if files[-1].is_dir() else [files[-1]]


def keep_corrected(root: Path, name: str) -> None:
    """Keep the map of a slide that is about to be made again, if a person corrected it.

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
    """Apply a region's outline to its mark; a deleted region negates its own class."""
    if region is None:
        return mark
    name = (region.class_name or "") if mark.state == "deleted" else mark.name
    return replace(mark, name=name, geometry=region.geometry)


def _accept(path: Path, ours: Sequence[Mark], unchanged: Sequence[Feature]) -> list[Mark]:
    """Return the map's regions in the areas that a person checked and left unchanged."""
    areas = [mark.geometry for mark in ours if mark.state == "checked"]
    if not areas:
        return []
    checked = join(areas)
    shapes = shapely.intersection([shapely.make_valid(one.geometry) for one in unchanged], checked)
    kept = [
        (one, keep_polygons(shape))
        for one, shape in zip(unchanged, shapes, strict=True)
        if shape.area > 0 and one.class_name
    ]
    return [
        Mark(one.class_name or "", shape, f"{path}: region {one.id}", "checked", one.id or "")
        for one, shape in kept
    ]
