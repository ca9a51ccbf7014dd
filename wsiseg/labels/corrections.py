"""Corrections of a finished map, with the outlines of our own file.

QuPath 0.6 and 0.7 lose area of large outlines when they export them, so a region of ours is taken
from the file that it came from, by its id. What a person checked and left is taken from there too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import shapely

from wsiseg.errors import GeoJsonError
from wsiseg.labels.cover import join
from wsiseg.labels.mark import Mark
from wsiseg.qupath import Feature, read_geojson
from wsiseg.store import SlideStore

__all__ = ["find_map", "resolve_regions"]


def resolve_regions(
    path: Path, marks: Sequence[Mark], store: SlideStore, problems: list[str]
) -> list[Mark]:
    """`marks` with the outlines of our own map, and what it shows in areas that were checked.

    Parameters
    ----------
    problems
        Takes in a map that is missing, and ids that it does not hold.
    """
    ours = [mark for mark in marks if mark.state in ("reclassified", "deleted", "checked")]
    if not ours:
        return list(marks)
    source = find_map(store)
    if not source:
        problems.append(
            f"{path}: corrects a map that is not there: {store.path.stem}.geojson in the geojson "
            f"folder beside {store.path.parent}"
        )
        return []
    try:
        regions = [feature for part in source for feature in read_geojson(part)]
    except GeoJsonError as error:
        problems.append(str(error))
        return []
    known = {feature.id: feature for feature in regions if feature.id}
    resolved = []
    for mark in marks:
        if mark.state not in ("reclassified", "deleted"):
            resolved.append(mark)
        elif mark.region in known:
            resolved.append(_take_outline(mark, known[mark.region]))
        else:
            problems.append(
                f"{mark.where}: corrects region {mark.region}, which {source[0].name} does not "
                f"hold: the map was made again since; import it and correct that"
            )
    touched = {mark.region for mark in ours}
    return resolved + _accept(path, ours, [r for r in regions if r.id not in touched])


def find_map(store: SlideStore) -> list[Path]:
    """Our own GeoJSON of a store in an output folder, plain, packed or in parts; or nothing."""
    folders = [parent for parent in store.path.parents if parent.name == "slides"]
    if not folders:
        return []
    base = folders[0].parent / "geojson" / store.path.relative_to(folders[0]).with_suffix("")
    found = [Path(f"{base}{suffix}") for suffix in (".geojson", ".geojson.gz", ".parts")]
    found = sorted((p for p in found if p.exists()), key=lambda p: p.stat().st_mtime)
    if not found:
        return []
    return sorted(found[-1].glob("*.geojson.gz")) if found[-1].is_dir() else [found[-1]]


def _take_outline(mark: Mark, region: Feature) -> Mark:
    """A deleted region says that its own class is not there."""
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
