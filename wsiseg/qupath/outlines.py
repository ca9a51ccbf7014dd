"""Regions' rings in the file's coordinates: rounded first, then judged, then mended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import orjson
import shapely
from numpy.typing import NDArray

from wsiseg.annotations import Region
from wsiseg.errors import GeoJsonError
from wsiseg.qupath.shapes import DECIMALS, build_polygons

__all__ = ["Outline", "place_outlines"]


class Outline(NamedTuple):
    """One region's GeoJSON geometry."""

    region: Region
    kind: Literal[b"Polygon", b"MultiPolygon"]
    coordinates: bytes
    """As JSON."""
    corner: tuple[int, int]
    """First corner of the shell in reading order, x and y in raster pixels: where it is, whatever
    point its ring starts at."""


def place_outlines(
    regions: Sequence[Region], scale: tuple[float, float], origin: tuple[int, int]
) -> Iterator[Outline]:
    """Each region with its outline at ``raster * scale - origin``; none for one without area.

    Raises
    ------
    GeoJsonError
        If a ring is open or too short.
    """
    rings = [ring for region in regions for ring in (region.exterior, *region.holes)]
    lengths = np.array([len(ring) for ring in rings])
    starts = np.cumsum(lengths) - lengths
    raster = np.concatenate(rings)
    _check_rings(raster, starts, lengths)
    points = _place(raster, scale, origin)
    counts = [1 + len(region.holes) for region in regions]
    polygons = build_polygons(points, starts, np.repeat(np.arange(len(regions)), counts))
    # A valid polygon has area; the others are looked at one by one.
    valid = shapely.is_valid(polygons).tolist()
    stops = (starts + lengths).tolist()
    placed = [points[a:b] for a, b in zip(starts.tolist(), stops, strict=True)]
    shells = np.cumsum([0, *counts[:-1]])
    corners = _first_corners(raster, starts, lengths)[shells].tolist()
    for which, first in enumerate(shells.tolist()):
        kind: Literal[b"Polygon", b"MultiPolygon"] = b"Polygon"
        own: list[Any] = placed[first : first + counts[which]]
        if not valid[which]:
            parts = _mend(polygons[which], points.dtype)
            if not parts:
                continue
            kind, own = (b"Polygon", parts[0]) if len(parts) == 1 else (b"MultiPolygon", parts)
        yield Outline(regions[which], kind, _to_json(own, points.dtype), tuple(corners[which]))


def _check_rings(
    points: NDArray[np.int32], starts: NDArray[np.intp], lengths: NDArray[np.intp]
) -> None:
    if (lengths < 4).any():
        raise GeoJsonError(f"a ring has {lengths.min()} points; it needs 4, the last as the first")
    if (points[starts] != points[starts + lengths - 1]).any():
        raise GeoJsonError("a ring's last point is not its first; close every ring")


def _first_corners(
    points: NDArray[np.int32], starts: NDArray[np.intp], lengths: NDArray[np.intp]
) -> NDArray[np.int64]:
    """``(R, 2)`` x, y of each ring's topmost point, the leftmost of these."""
    # y and x in one number, so that one minimum a ring finds both.
    order = (points[:, 1].astype(np.int64) << 32) + points[:, 0]
    first = np.minimum.reduceat(order, starts)
    y = (first + (1 << 31)) >> 32
    return np.stack([first - (y << 32), y], axis=1)


def _place(
    points: NDArray[np.int32], scale: tuple[float, float], origin: tuple[int, int]
) -> NDArray[Any]:
    """``(N, 2)`` int64 if the scale is whole, else float64 of 2 decimals."""
    if all(float(factor).is_integer() for factor in scale):
        return points.astype(np.int64) * np.array(scale, np.int64) - np.array(origin, np.int64)
    placed = np.round(points * np.array(scale, np.float64) - np.array(origin), DECIMALS)
    return np.asarray(placed + 0.0)  # no minus zero


def _mend(polygon: Any, dtype: np.dtype[Any]) -> list[list[NDArray[Any]]]:
    """Rings of the parts of the valid shape nearest to an invalid one, on the file's grid."""
    grid = 1.0 if dtype.kind == "i" else 10.0**-DECIMALS
    whole = shapely.make_valid(polygon, method="structure", keep_collapsed=False)
    snapped = shapely.get_parts(shapely.set_precision(whole, grid))
    parts = [part for part in snapped if part.geom_type == "Polygon" and part.area > 0]
    rounded = shapely.transform(parts, lambda points: np.round(points, DECIMALS) + 0.0)
    if not shapely.is_valid(shapely.multipolygons(rounded)):
        raise GeoJsonError(f"an outline cannot be made valid on a grid of {grid} px: {polygon}")
    return [
        [_as_array(ring, dtype) for ring in (part.exterior, *part.interiors)] for part in rounded
    ]


def _as_array(ring: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(shapely.get_coordinates(ring).astype(dtype))


def _to_json(coordinates: list[Any], dtype: np.dtype[Any]) -> bytes:
    text = orjson.dumps(coordinates, option=orjson.OPT_SERIALIZE_NUMPY)
    if dtype.kind == "i":
        return text
    return text.replace(b".0,", b",").replace(b".0]", b"]")  # whole numbers as such
