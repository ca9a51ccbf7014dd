"""Regions' rings in the file's coordinates: rounded first, then judged, then mended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from wsiseg.annotations import Annotations, Region
from wsiseg.errors import GeoJsonError
from wsiseg.qupath.form.shapes import DECIMALS, build_polygons, mend_shape
from wsiseg.qupath.write.text import format_rings, mark_rings

__all__ = ["Outlines", "are_valid", "mark_region", "place_outlines", "stream_outline"]

_HUNDRED = 10**DECIMALS
_PIECE = 200_000
"""Points whose text is made at a time."""


class Outlines(NamedTuple):
    """The GeoJSON geometries of regions, in their order."""

    kinds: list[bytes]
    """``Polygon`` or ``MultiPolygon``; empty for a region that rounds to nothing."""
    coordinates: list[bytes]
    """As JSON."""
    marks: list[bytes]
    """What tells each from the others, whatever point its rings start at."""


def place_outlines(
    regions: Sequence[Region],
    scale: tuple[float, float],
    origin: tuple[int, int],
    valid: bool = False,
) -> Outlines:
    """Each region's outline at ``raster * scale - origin``, in whole hundredths of a pixel.

    They are judged one by one unless it is known that they are `valid`, as `are_valid` says.

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
    placed = _place(raster, scale, origin)
    texts = format_rings(placed, starts)
    stops = np.cumsum(counts).tolist()
    coordinates = [
        b"[%b]" % (texts[a] if b - a == 1 else b",".join(texts[a:b]))
        for a, b in zip([0, *stops], stops, strict=False)
    ]
    kinds = [b"Polygon"] * len(regions)
    if valid:
        return Outlines(kinds, coordinates, _mark(raster, starts, owners))
    polygons = build_polygons(placed / _HUNDRED, starts, owners)
    # A valid polygon has area; the others are looked at one by one.
    for which in np.flatnonzero(~shapely.is_valid(polygons)).tolist():
        kinds[which], coordinates[which] = _mend(polygons[which], scale)
    return Outlines(kinds, coordinates, _mark(raster, starts, owners))


def are_valid(annotations: Annotations) -> bool:
    """Whether all outlines are valid polygons in the file's coordinates too, as they are.

    Pixel edges are if rounding leaves every column and row of the raster a place of its own, others
    if it moves nothing. GEOS takes more than proportionally long over regions of many vertices.
    """
    hundredths = [length * _HUNDRED for length in annotations.scale]
    if annotations.exact:
        return bool(min(hundredths) >= 2)
    return annotations.valid and all(length.is_integer() for length in hundredths)


def stream_outline(
    region: Region, scale: tuple[float, float], origin: tuple[int, int]
) -> Iterator[bytes]:
    """The JSON coordinates of one valid region in pieces, however many vertices it has."""
    yield b"["
    separator = b""
    for rings in _batches(region):
        for text in _format_batch(rings, scale, origin):
            yield separator + text
            separator = b","
        separator = b","
    yield b"]"


def _format_batch(
    rings: Sequence[NDArray[np.int32]], scale: tuple[float, float], origin: tuple[int, int]
) -> Iterator[bytes]:
    """The rings' text; that of one long ring in pieces."""
    if len(rings) > 1 or len(rings[0]) <= _PIECE:
        lengths = np.array([len(ring) for ring in rings])
        placed = _place(np.concatenate(rings), scale, origin)
        yield b",".join(format_rings(placed, np.cumsum(lengths) - lengths))
        return
    (ring,) = rings
    for start in range(0, len(ring), _PIECE):
        (text,) = format_rings(
            _place(ring[start : start + _PIECE], scale, origin), np.zeros(1, np.intp)
        )
        first, last = start == 0, start + _PIECE >= len(ring)
        yield text[0 if first else 1 : len(text) if last else -1]


def _batches(region: Region) -> Iterator[list[NDArray[np.int32]]]:
    """Runs of the region's rings, some of `_PIECE` points; a longer ring is one of its own."""
    batch: list[NDArray[np.int32]] = []
    points = 0
    for ring in (region.exterior, *region.holes):
        if batch and points + len(ring) > _PIECE:
            yield batch
            batch, points = [], 0
        batch.append(ring)
        points += len(ring)
    yield batch


def mark_region(region: Region) -> bytes:
    """The mark of one region, as `Outlines.marks` has it.

    Raises
    ------
    GeoJsonError
        If a ring is open or too short.
    """
    mark = np.zeros(3, np.int64)
    for number, rings in enumerate(_batches(region)):
        lengths = np.array([len(ring) for ring in rings])
        starts = np.cumsum(lengths) - lengths
        points = rings[0] if len(rings) == 1 else np.concatenate(rings)
        _check_rings(points, starts, lengths)
        part = np.empty((1, 3), np.int64)
        mark_rings(points, np.append(starts, len(points)), np.zeros(len(rings), np.intp), part)
        if number == 0:
            mark[:2] = part[0, :2]
        mark[2:] += part[0, 2:]
    return mark.astype("<i8").tobytes()


def _place(
    raster: NDArray[np.int32], scale: tuple[float, float], origin: tuple[int, int]
) -> NDArray[np.int64]:
    placed = (raster * np.array(scale) - np.array(origin)) * _HUNDRED
    rounded: NDArray[np.int64] = np.rint(placed).astype(np.int64)
    return rounded


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
