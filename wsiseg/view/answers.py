"""The server's answers about slides, regions and corrections, as plain JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from wsiseg.view.collection import Entry
from wsiseg.view.earlier import Earlier, copy_id
from wsiseg.view.features import Feature, kind_of, read_correction
from wsiseg.view.learning import learn_command
from wsiseg.view.library import Library, Shown
from wsiseg.view.places import Places
from wsiseg.view.regions import Region
from wsiseg.view.scene import FINEST, TILE

__all__ = [
    "describe_corrections",
    "describe_earlier",
    "describe_feature",
    "describe_hover",
    "describe_outlines",
    "describe_places",
    "describe_ranked",
    "describe_region",
    "describe_regions",
    "describe_scene",
    "list_slides",
]

_BUDGET = 60_000
"""Most points of outlines in a view; beyond this, the page shows only the raster."""
_MAX_POINTS = 20_000  # of one selected region


def list_slides(library: Library, places: Places, earlier: Earlier) -> dict[str, Any]:
    """List every run, its slides, its suggested places by rank and the command to learn."""
    runs = [
        {
            "title": run.title, "slides": [_list_entry(entry) for entry in entries],
            "places": _list_places(entries, places),
            "learn": learn_command(run, earlier.corrections),
        }
        for run, entries in library.list_entries()
    ]  # fmt: skip
    return {"runs": runs}


def _list_entry(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.id, "name": entry.name, "status": entry.status, "note": entry.note,
        "error": entry.error, "viewable": entry.store is not None,
        "tissue_mm2": entry.tissue_mm2, "class_mm2": entry.class_mm2,
        "corrected": entry.corrections.is_file(),
    }  # fmt: skip


def _list_places(entries: Sequence[Entry], places: Places) -> list[dict[str, Any]]:
    listed = []
    for entry in entries:
        if entry.store is None:
            continue
        labelled = places.labelled(entry)
        listed += [
            {"rank": place.rank, "slide": entry.id, "labelled": place.rank in labelled}
            for place in places.on(entry)
        ]
    return sorted(listed, key=lambda one: one["rank"])


def describe_scene(shown: Shown) -> dict[str, Any]:
    """Describe the frame, layers and classes of a slide."""
    scene, entry = shown.scene, shown.entry
    areas = entry.class_mm2 or scene.areas()
    classes = [
        {"name": name, "color": list(color), "mm2": areas.get(name)}
        for name, color in zip(scene.palette.names, scene.palette.colors, strict=True)
    ]
    return {
        "id": entry.id, "name": entry.name, "note": entry.note, "missing": scene.missing,
        "width": scene.size.width, "height": scene.size.height, "mpp": scene.mpp,
        "version": scene.version, "layers": scene.versions,
        "tile": TILE, "coarsest": scene.coarsest, "finest": FINEST,
        "scores": scene.scores, "scored": len(scene.palette.classes) if scene.scores else 0,
        "classes": classes, "tissue_mm2": entry.tissue_mm2,
    }  # fmt: skip


def describe_regions(shown: Shown) -> dict[str, Any]:
    """Count the regions and their vertices."""
    regions = shown.regions
    return {"count": len(regions), "vertices": regions.vertices}


def describe_region(shown: Shown, region: Region, tolerance: float | None = None) -> dict[str, Any]:
    """Describe one region; with a `tolerance` in frame pixels, include its rings."""
    left, top, right, bottom = region.box
    described: dict[str, Any] = {
        "index": region.index, "id": region.id, "class": region.class_name,
        "mm2": region.area_mm2, "confidence": region.confidence,
        "box": [*shown.to_frame(left, top), *shown.to_frame(right, bottom)],
    }  # fmt: skip
    if tolerance is not None:
        described["rings"] = _rings(shown, shown.regions.geometry(region.index), tolerance)
    return described


def describe_outlines(
    shown: Shown, box: tuple[float, float, float, float], tolerance: float
) -> dict[str, Any]:
    """Return lines in a view as flat lists of x and y in frame pixels, unless too many."""
    corners = (*shown.to_file(*box[:2]), *shown.to_file(*box[2:]))
    outlines = shown.regions.outlines(corners, tolerance * shown.scene.to_px0[0], _BUDGET)
    if outlines is None:
        return {"over": True, "lines": [], "regions": 0}
    labels = {name: label for label, name in enumerate(shown.scene.palette.names)}
    owners = outlines.owners.tolist()
    lines = np.split(_flat(shown, outlines.points), 2 * np.cumsum(outlines.lengths))[:-1]
    described = [
        [owner, labels.get(shown.regions.class_of(owner), 255), line]
        for owner, line in zip(owners, lines, strict=True)
    ]
    return {"over": False, "lines": described, "regions": len(set(owners))}


def describe_hover(shown: Shown, x: float, y: float) -> dict[str, Any] | None:
    """Describe a point of the frame: the class in the label raster, and the region."""
    label = shown.scene.label_at(x, y)
    if label is None or label[0] >= len(shown.scene.palette):
        return None
    name = shown.scene.palette.names[label[0]]
    place = shown.to_file(x, y)
    # Simplified or absorbed outlines may assign a point to another class.
    region = shown.regions.at(*place, name) or shown.regions.at(*place)
    return {
        "class": name, "confidence": label[1] / 255,
        "region": None if region is None else describe_region(shown, region),
    }  # fmt: skip


def describe_ranked(shown: Shown, order: str, rank: int, names: list[str]) -> dict[str, Any]:
    """Describe the region of a rank among those of some classes; ranks wrap around."""
    indices = shown.regions.ranked(order, names)
    if not len(indices):
        return {"count": 0, "region": None}
    index = int(indices[rank % len(indices)])
    region = describe_region(shown, shown.regions[index])
    return {"count": len(indices), "rank": rank % len(indices), "region": region}


def describe_places(shown: Shown, places: Places) -> dict[str, Any]:
    """Describe the frames of a slide's suggested places, in frame pixels."""
    frames = [
        {
            "rank": place.rank,
            "box": [
                *shown.to_frame(place.x, place.y, shown.corner),
                *shown.to_frame(place.x + place.width, place.y + place.height, shown.corner),
            ],
        }
        for place in places.on(shown.entry)
    ]
    return {"frames": frames}


def describe_corrections(shown: Shown) -> dict[str, Any]:
    """Describe all corrections of a slide, in frame pixels."""
    content = shown.corrections.read()
    features = [describe_feature(shown, feature) for feature in content.features]
    return {
        "version": content.version,
        "features": [feature for feature in features if feature is not None],
        "others": sum(feature is None for feature in features),
        "undoable": shown.corrections.undoable,
    }


def describe_earlier(shown: Shown, earlier: Earlier) -> dict[str, Any]:
    """Describe the earlier run's corrections of a slide, in frame pixels, or why there are none.

    `copy` is the id that each has once it was kept; None if it cannot be.
    """
    found = earlier.read(shown)
    described = [(_describe(shown, one), copy_id(one)) for one in found.features]
    features = [{**one, "earlier": False, "copy": copy} for one, copy in described if one]
    return {"title": earlier.title, "note": found.note, "features": features}


def describe_feature(shown: Shown, feature: Feature) -> dict[str, Any] | None:
    """Describe a correction for the page; None for other features, and damaged ones."""
    described = _describe(shown, feature)
    return described and {**described, "earlier": _is_earlier(shown, feature)}


def _describe(shown: Shown, feature: Feature) -> dict[str, Any] | None:
    one = read_correction(feature)
    return one and {
        "id": one.id, "kind": one.kind, "class": one.class_name, "color": one.color,
        "from": one.was, "rings": _rings(shown, one.shape, 0.5), "mm2": _mm2(shown, one.shape),
    }  # fmt: skip


def _is_earlier(shown: Shown, feature: Feature) -> bool:
    """Whether a correction is of a region that the map does not have any more."""
    if kind_of(feature) not in ("reclassified", "deleted") or not shown.scene.labelled:
        return False
    return shown.regions.find(str(feature["id"])) is None


def _mm2(shown: Shown, shape: shapely.Geometry) -> float:
    (fx, fy), mpp = shown.scene.to_px0, shown.scene.mpp
    return float(shape.area) * (mpp / fx) * (mpp / fy) / 1e6


def _rings(shown: Shown, shape: shapely.Geometry, tolerance: float) -> list[NDArray[np.float32]]:
    """List all rings of a shape for even-odd filling, simplified if they are too long."""
    while shapely.get_num_coordinates(shape) > _MAX_POINTS and tolerance < 1e6:
        tolerance = max(1.0, tolerance * 2)
        shape = shapely.simplify(shape, tolerance)
    parts = [one for one in shapely.get_parts(shape) if one.geom_type == "Polygon"]
    rings = [ring for part in parts for ring in (part.exterior, *part.interiors)]
    return [_flat(shown, shapely.get_coordinates(ring)) for ring in rings]


def _flat(shown: Shown, points: NDArray[np.float64]) -> NDArray[np.float32]:
    """Flatten points to ``[x, y, x, y, ...]`` in frame pixels, rounded to a tenth."""
    x, y = shown.to_frame(points[:, 0], points[:, 1])
    return np.round(np.column_stack([x, y]), 1).astype(np.float32).ravel()
