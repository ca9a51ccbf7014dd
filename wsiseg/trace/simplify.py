"""Simplify regions as one coverage: borders that two regions share stay shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import shapely
from numpy.typing import NDArray

from wsiseg.annotations import Region

__all__ = ["build_polygons", "polygon_area", "simplify_regions"]


def build_polygons(regions: Sequence[Region]) -> NDArray[np.object_]:
    """Shapely polygons of the regions, in raster pixels."""
    rings = [ring for region in regions for ring in (region.exterior, *region.holes)]
    ring_ends = np.cumsum([0] + [len(ring) for ring in rings])
    region_ends = np.cumsum([0] + [1 + len(region.holes) for region in regions])
    points = np.concatenate(rings).astype(float)
    return np.asarray(
        shapely.from_ragged_array(shapely.GeometryType.POLYGON, points, (ring_ends, region_ends))
    )


def simplify_regions(regions: Sequence[Region], tolerance: float) -> list[Region]:
    """Regions with fewer vertices, without gaps or overlaps between them.

    Parameters
    ----------
    regions
        Traced with junctions, so that neighbours share every vertex.
    tolerance
        In pixels: the square of it is the area of the largest triangle that may be cut off.

    Returns
    -------
    list of Region
        In the same order; `area_px` stays the raster's. Vertices are some of those that were there.
    """
    if not regions:
        return []
    polygons = shapely.coverage_simplify(build_polygons(regions), tolerance)
    _, points, (ring_ends, region_ends) = shapely.to_ragged_array(polygons)
    points = points.astype(np.int32)
    rings = [points[i:j] for i, j in pairwise(ring_ends.tolist())]
    return [
        replace(region, exterior=rings[i], holes=tuple(rings[i + 1 : j]))
        for region, (i, j) in zip(regions, pairwise(region_ends.tolist()), strict=True)
    ]


def polygon_area(region: Region) -> float:
    """Area of a region's polygon in square pixels (holes taken off)."""
    total = 0
    for ring in (region.exterior, *region.holes):
        x, y = ring[:, 0].astype(np.int64), ring[:, 1].astype(np.int64)
        total += int((x[:-1] * y[1:] - x[1:] * y[:-1]).sum())
    return abs(total) / 2
