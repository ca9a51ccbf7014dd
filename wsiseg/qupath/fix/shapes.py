"""Repairs of a geometry: rings closed, invalid outlines mended, collections taken apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from wsiseg.errors import GeoJsonError
from wsiseg.qupath.fix.members import Change
from wsiseg.qupath.form.document import GEOMETRY_TYPES
from wsiseg.qupath.form.shapes import DECIMALS, LARGEST, are_flat, build_shapes, mend_shape

__all__ = ["fix_geometry"]

_TYPES = {name.lower(): name for name in (*GEOMETRY_TYPES, "GeometryCollection")}
_PLANE = ("c", "z", "t")
_DEPTH = {"Point": 0, "MultiPoint": 1, "LineString": 1, "MultiLineString": 2}
"""How deep positions lie in the coordinates."""


def fix_geometry(geometry: Any) -> tuple[list[dict[str, Any]], list[Change]]:
    """Geometries that break no rule: one, several out of a collection, or none to be saved.

    What is right already stays as it is, digit for digit.
    """
    if not isinstance(geometry, dict):
        return [], [("geometry", "it has no geometry", True)]
    kind = _TYPES.get(str(geometry.get("type")).lower())
    if kind is None:
        message = f"it has the geometry type {geometry.get('type')!r:.40}"
        return [], [("geometry-type", message, True)]
    changes: list[Change] = []
    if kind != geometry["type"]:
        changes.append(("geometry-type", f"{geometry['type']!r} is {kind!r} now", False))
        geometry = {**geometry, "type": kind}
    geometry, more = _fix_plane(geometry)
    changes += more
    if kind == "GeometryCollection":
        fixed, more = _take_apart(geometry)
    elif kind in ("Polygon", "MultiPolygon"):
        fixed, more = _fix_polygons(geometry)
    else:
        fixed, more = _fix_positions(geometry)
    return fixed, changes + more


def _fix_plane(geometry: dict[str, Any]) -> tuple[dict[str, Any], list[Change]]:
    plane = geometry.get("plane", {})
    if isinstance(plane, dict) and plane.keys() <= set(_PLANE):
        return geometry, []
    kept = {k: plane[k] for k in _PLANE if k in plane} if isinstance(plane, dict) else {}
    rest = {k: v for k, v in geometry.items() if k != "plane"}
    return rest | ({"plane": kept} if kept else {}), [
        ("plane", f"the plane {plane!r:.60} is {kept or 'left out'} now", False)
    ]


def _take_apart(geometry: dict[str, Any]) -> tuple[list[dict[str, Any]], list[Change]]:
    members = geometry.get("geometries")
    members = members if isinstance(members, list) else []
    plane = {"plane": geometry["plane"]} if "plane" in geometry else {}
    fixed: list[dict[str, Any]] = []
    changes: list[Change] = []
    for member in members:
        more, told = fix_geometry(plane | member if isinstance(member, dict) else member)
        fixed += more
        changes += told
    message = f"a GeometryCollection is {len(fixed)} features now"
    return fixed, [("geometry-type", message, not fixed), *changes]


def _fix_positions(geometry: dict[str, Any]) -> tuple[list[dict[str, Any]], list[Change]]:
    """Points and lines, without what is no position."""
    if not _problems(geometry):
        return [geometry], []
    kind = geometry["type"]
    kept = _keep_positions(geometry.get("coordinates"), _DEPTH[kind], kind.endswith("LineString"))
    fixed = {**geometry, "coordinates": kept}
    if kept is None or _problems(fixed):
        return [], [("coordinates", f"a {kind} whose coordinates are malformed", True)]
    return [fixed], [("coordinates", f"a {kind} lost what is no [x, y]", True)]


def _problems(geometry: dict[str, Any]) -> list[str]:
    return [problem.rule for problem in build_shapes([geometry])[1]]


def _keep_positions(value: Any, depth: int, lines: bool) -> Any:
    """Numbers at `depth`; ``None`` for nothing."""
    if not isinstance(value, list):
        return None
    if depth == 0:
        return value[:2] if len(value) >= 2 and all(map(_is_coordinate, value[:2])) else None
    kept = [
        item for item in (_keep_positions(v, depth - 1, lines) for v in value) if item is not None
    ]
    shortest = 2 if lines and depth == 1 else 1
    return kept if len(kept) >= shortest else None


def _is_coordinate(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= LARGEST


def _fix_polygons(geometry: dict[str, Any]) -> tuple[list[dict[str, Any]], list[Change]]:
    broken = _problems(geometry)
    if not broken:
        return [geometry], []
    coordinates = geometry.get("coordinates")
    parts = coordinates if geometry["type"] == "MultiPolygon" else [coordinates]
    changes: list[Change] = []
    polygons = [
        shapely.Polygon(rings[0], rings[1:])
        for part in (parts if isinstance(parts, list) else [])
        if (rings := _clean_rings(part, changes))
    ]
    try:
        mended, more = _mend(polygons)
    except GeoJsonError:
        return [], [*changes, ("invalid", "its outline cannot be made valid", True)]
    changes += more
    if not mended:
        return [], [*changes, (broken[0], "nothing with an area is left of it", True)]
    if "one-part" in broken and len(mended) == 1:
        changes.append(("one-part", "a MultiPolygon of one part is a Polygon now", False))
    shapes = [[_spell(ring) for ring in (p.exterior, *p.interiors)] for p in mended]
    fixed = {"type": "Polygon", "coordinates": shapes[0]} if len(shapes) == 1 else {
        "type": "MultiPolygon", "coordinates": shapes}  # fmt: skip
    return [{**geometry, **fixed}], changes


def _clean_rings(part: Any, changes: list[Change]) -> list[NDArray[np.float64]]:
    """Closed rings of the written precision; none if the shell cannot be used."""
    rings = []
    for index, ring in enumerate(part if isinstance(part, list) else []):
        positions = _keep_positions(ring, 1, False) or []
        if len(positions) < (len(ring) if isinstance(ring, list) else 1):
            changes.append(("coordinates", "a ring lost what is no [x, y]", True))
        points = np.round(np.array(positions, np.float64).reshape(-1, 2), DECIMALS) + 0.0
        # Judged as it stands, as QuPath asks for the very same number.
        if positions and positions[0][:2] != positions[-1][:2]:
            points = np.concatenate([points, points[:1]])
            changes.append(("ring-open", "closed a ring", False))
        if len(points) < 4:
            changes.append(("ring-short", f"a ring of {len(points)} points", True))
            if index == 0:
                return []
            continue
        points[-1] = points[0]
        rings.append(points)
    return rings


def _mend(polygons: list[Any]) -> tuple[list[Any], list[Change]]:
    """Valid polygons apart from each other."""
    flat = are_flat(np.array(polygons, object))
    kept = [polygon for polygon, is_flat in zip(polygons, flat, strict=True) if not is_flat]
    changes: list[Change] = []
    if len(kept) < len(polygons):
        changes.append(("zero-area", f"{len(polygons) - len(kept)} parts without an area", True))
    whole = shapely.MultiPolygon(kept) if len(kept) != 1 else kept[0]
    if not kept or shapely.is_valid(whole):
        return kept, changes
    mended = mend_shape(shapely.union_all([_take_off_holes(polygon) for polygon in kept]))
    message = f"mended its outline ({shapely.is_valid_reason(whole)})"
    return mended, [*changes, ("invalid", message, False)]


def _take_off_holes(polygon: Any) -> Any:
    """The valid area within the shell and in none of the holes, wherever these lie."""
    shell, *holes = (
        shapely.make_valid(shapely.Polygon(ring), method="structure", keep_collapsed=False)
        for ring in (polygon.exterior, *polygon.interiors)
    )
    return shapely.difference(shell, shapely.union_all(holes))


def _spell(ring: Any) -> list[list[float]]:
    """Positions, integers where they are whole."""
    points = shapely.get_coordinates(ring).tolist()
    return [[int(v) if v.is_integer() else v for v in point] for point in points]
