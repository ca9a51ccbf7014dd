"""Simplify and smooth regions as one coverage, so that neighbours keep common borders."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from wsiseg.annotations import Region
from wsiseg.kernels import kernel
from wsiseg.trace.coverage import Coverage, flatten_rings, holds_vertex, number_vertices
from wsiseg.trace.thin import thin_coverage

__all__ = ["SMOOTH_UNITS", "polygon_areas", "simplify_regions", "smooth_regions"]

SMOOTH_UNITS = 4
"""Number of units into which `smooth_regions` divides a pixel's side, so that cuts are integers."""

_NO_POINTS = np.zeros((0, 2), np.int32)
_MAX_SIZE = 1 << 30
"""Twice the largest triangle's area; it fits into one number together with an index."""


def simplify_regions(regions: Iterable[Region], tolerance: float) -> list[Region]:
    """Remove vertices of regions, without gaps, overlaps or crossings between them.

    Visvalingam and Whyatt's algorithm (1993) on the borders that two regions share.

    Parameters
    ----------
    regions
        Traced with junctions, so that neighbours share every vertex. Regions of an iterator are not
        kept once read, so if it releases them, their points are in memory only once.
    tolerance
        In pixels: its square is the area of the largest triangle that may be cut off.

    Returns
    -------
    list of Region
        In the same order, none missing; `area_px` remains that of the raster. The vertices are a
        subset of the original ones.
    """
    shells, coverage = _build_coverage(regions)
    if coverage is None:
        return []
    alive = thin_coverage(coverage, min(int(2 * tolerance**2), _MAX_SIZE))
    return _with_rings(shells, *_keep(coverage, alive))


def smooth_regions(regions: Iterable[Region]) -> list[Region]:
    """Cut every corner of regions at a quarter of its edges (Chaikin 1974), as one coverage.

    Vertices where three regions meet are kept, as are corners whose triangle contains another
    vertex, where a cut might cross another border. All other cuts cross nothing, as cuts of empty
    triangles cannot meet.

    Parameters
    ----------
    regions
        A coverage, as returned by `simplify_regions`.

    Returns
    -------
    list of Region
        In the same order, on a raster `SMOOTH_UNITS` times as fine; `area_px` is the same area.
    """
    shells, coverage = _build_coverage(regions)
    if coverage is None:
        return []
    finer = [replace(region, area_px=region.area_px * SMOOTH_UNITS**2) for region in shells]
    return _with_rings(finer, *_cut_corners(coverage, _cuttable(coverage)))


def polygon_areas(regions: Sequence[Region]) -> NDArray[np.float64]:
    """Return the area of each region's polygon without holes, in squared units: ``(R,)``."""
    if not regions:
        return np.zeros(0)
    points, stops = flatten_rings([ring for region in regions for ring in _rings(region)])
    rings = _ring_areas(points, stops)
    first = np.cumsum([0] + [1 + len(region.holes) for region in regions[:-1]])
    return np.abs(np.add.reduceat(rings, first)) / 2


def _rings(region: Region) -> tuple[NDArray[np.int32], ...]:
    return region.exterior, *region.holes


def _build_coverage(regions: Iterable[Region]) -> tuple[list[Region], Coverage | None]:
    """Return the regions without points, and the coverage of their rings; None for no regions."""
    rings: list[NDArray[np.int32]] = []
    shells = []
    for region in regions:
        rings += _rings(region)
        holes = (_NO_POINTS,) * len(region.holes)
        shells.append(replace(region, exterior=_NO_POINTS, holes=holes))
        del region
    if not rings:
        return [], None
    points, stops = flatten_rings(rings)
    del rings
    flat = [points]
    del points
    return shells, number_vertices(flat, stops)


def _with_rings(
    regions: Sequence[Region], points: NDArray[np.int32], stops: NDArray[np.int64]
) -> list[Region]:
    """Return the regions with new closed rings, ``points[stops[i] : stops[i + 1]]``."""
    rings = [points[i:j] for i, j in pairwise(stops.tolist())]
    ends = np.cumsum([0] + [1 + len(region.holes) for region in regions])
    return [
        replace(region, exterior=rings[i], holes=tuple(rings[i + 1 : j]))
        for region, (i, j) in zip(regions, pairwise(ends.tolist()), strict=True)
    ]


@kernel
def _keep(net, alive):  # type: ignore[no-untyped-def]  # numba infers the types
    """Return closed rings of the living vertices; each begins at its first living vertex."""
    ring, stops, xs, ys = net.ring, net.stops, net.xs, net.ys
    total = stops.size - 1
    for i in range(ring.size):
        total += alive[ring[i]]
    out, ends, filled = np.empty((total, 2), np.int32), np.zeros(stops.size, np.int64), 0
    for r in range(stops.size - 1):
        begin = filled
        for i in range(stops[r], stops[r + 1]):
            if alive[ring[i]]:
                out[filled, 0], out[filled, 1] = xs[ring[i]], ys[ring[i]]
                filled += 1
        out[filled, 0], out[filled, 1] = out[begin, 0], out[begin, 1]
        filled += 1
        ends[r + 1] = filled
    return out, ends


@kernel
def _cuttable(net):  # type: ignore[no-untyped-def]  # numba infers the types
    """Flag the corners between two regions whose triangle is empty, ``(V,)`` bool."""
    ring, stops, nodes = net.ring, net.stops, net.nodes
    out, alive = np.zeros(nodes.size, np.bool_), np.ones(nodes.size, np.bool_)
    for r in range(stops.size - 1):
        before = ring[stops[r + 1] - 1]
        for i in range(stops[r], stops[r + 1]):
            vertex, after = ring[i], ring[i + 1 if i + 1 < stops[r + 1] else stops[r]]
            if not nodes[vertex] and not out[vertex]:
                out[vertex] = not holds_vertex(net, alive, before, vertex, after)
            before = vertex
    return out


@kernel
def _cut_corners(net, cuttable):  # type: ignore[no-untyped-def]  # numba infers the types
    """Return closed rings in quarter units, with every cuttable vertex replaced by two points."""
    ring, stops, xs, ys = net.ring, net.stops, net.xs, net.ys
    total = ring.size + stops.size - 1
    for i in range(ring.size):
        total += cuttable[ring[i]]
    out, ends, filled = np.empty((total, 2), np.int32), np.zeros(stops.size, np.int64), 0
    for r in range(stops.size - 1):
        begin, before = filled, ring[stops[r + 1] - 1]
        for i in range(stops[r], stops[r + 1]):
            vertex, after = ring[i], ring[i + 1 if i + 1 < stops[r + 1] else stops[r]]
            if cuttable[vertex]:
                for other in (before, after):
                    out[filled, 0] = 3 * xs[vertex] + xs[other]
                    out[filled, 1] = 3 * ys[vertex] + ys[other]
                    filled += 1
            else:
                out[filled, 0], out[filled, 1] = 4 * xs[vertex], 4 * ys[vertex]
                filled += 1
            before = vertex
        out[filled, 0], out[filled, 1] = out[begin, 0], out[begin, 1]
        filled += 1
        ends[r + 1] = filled
    return out, ends


@kernel
def _ring_areas(points, stops):  # type: ignore[no-untyped-def]  # numba infers the types
    """Return twice the signed area of each unclosed ring, int64."""
    out = np.zeros(stops.size - 1, np.int64)
    for r in range(out.size):
        x, y = np.int64(points[stops[r + 1] - 1, 0]), np.int64(points[stops[r + 1] - 1, 1])
        for i in range(stops[r], stops[r + 1]):
            after_x, after_y = np.int64(points[i, 0]), np.int64(points[i, 1])
            out[r] += x * after_y - after_x * y
            x, y = after_x, after_y
    return out
