"""Regions' rings in the file's coordinates: rounded first, then judged, then mended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from wsiseg.annotations import Region
from wsiseg.errors import GeoJsonError
from wsiseg.qupath.shapes import DECIMALS, build_polygons, mend_shape
from wsiseg.qupath.text import format_rings, mark_rings

__all__ = ["Outlines", "place_outlines"]

_HUNDRED = 10**DECIMALS


class Outlines(NamedTuple):
    """The GeoJSON geometries of regions, in their order."""

    kinds: list[bytes]
    """``Polygon`` or ``MultiPolygon``; empty for a region that rounds to nothing."""
    coordinates: list[bytes]
    """As JSON."""
    marks: list[bytes]
    """What tells each from the others, whatever point its rings start at."""


def place_outlines(
    regions: Sequence[Region], scale: tuple[float, float], origin: tuple[int, int]
) -> Outlines:
    """Each region's outline at ``raster * scale - origin``, in whole hundredths of a pixel.

    Raises
    ------
    GeoJsonError
        If a ring is open or too short, or an outline cannot be made valid.
    """
    rings = [ring for region in regions for ring in (region.exterior, *region.holes)]
    lengths = np.array([len(ring) for ring in rings])
    starts = np.cumsum(lengths) - lengths
    raster = np.concatenate(rings)
    _check_rings(raster, starts, lengths)
    counts = np.array([1 + len(region.holes) for region in regions])
    owners = np.repeat(np.arange(len(regions)), counts)
    placed = np.rint((raster * np.array(scale) - np.array(origin)) * _HUNDRED).astype(np.int64)
    polygons = build_polygons(placed / _HUNDRED, starts, owners)
    texts = format_rings(placed, starts)
    stops = np.cumsum(counts).tolist()
    coordinates = [
        b"[%b]" % (texts[a] if b - a == 1 else b",".join(texts[a:b]))
        for a, b in zip([0, *stops], stops, strict=False)
    ]
    kinds = [b"Polygon"] * len(regions)
    # A valid polygon has area; the others are looked at one by one.
    for which in np.flatnonzero(~shapely.is_valid(polygons)).tolist():
        kinds[which], coordinates[which] = _mend(polygons[which], scale)
    return Outlines(kinds, coordinates, _mark(raster, starts, owners))


def _mark(
    raster: NDArray[np.int32], starts: NDArray[np.intp], owners: NDArray[np.intp]
) -> list[bytes]:
    marks = np.empty((owners[-1] + 1, 3), "<i8")
    mark_rings(raster, np.append(starts, len(raster)), owners, marks)
    whole, size = marks.tobytes(), marks.itemsize * 3
    return [whole[at : at + size] for at in range(0, len(whole), size)]


def _check_rings(
    points: NDArray[np.int32], starts: NDArray[np.intp], lengths: NDArray[np.intp]
) -> None:
    if (lengths < 4).any():
        raise GeoJsonError(f"a ring has {lengths.min()} points; it needs 4, the last as the first")
    if (points[starts] != points[starts + lengths - 1]).any():
        raise GeoJsonError("a ring's last point is not its first; close every ring")


def _mend(polygon: Any, scale: tuple[float, float]) -> tuple[bytes, bytes]:
    """Kind and coordinates of the valid shape nearest to an invalid one, on the file's grid."""
    whole = all(float(factor).is_integer() for factor in scale)
    parts = [_format_polygon(part) for part in mend_shape(polygon, 1.0 if whole else 0.01)]
    if len(parts) > 1:
        return b"MultiPolygon", b"[%b]" % b",".join(parts)
    return (b"Polygon", parts[0]) if parts else (b"", b"")


def _format_polygon(polygon: Any) -> bytes:
    rings = [shapely.get_coordinates(ring) for ring in (polygon.exterior, *polygon.interiors)]
    lengths = np.array([len(ring) for ring in rings])
    hundredths = np.rint(np.concatenate(rings) * _HUNDRED).astype(np.int64)
    return b"[%b]" % b",".join(format_rings(hundredths, np.cumsum(lengths) - lengths))
