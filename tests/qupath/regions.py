"""The slow, obvious way from labels to regions: the tests' own, so that they stand alone."""

import numpy as np
import shapely
from scipy import ndimage

from wsiseg.annotations import BACKGROUND, PALETTES, Annotations, Region

SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
HOLE = [[2, 2], [2, 4], [4, 4], [4, 2], [2, 2]]


def make_region(exterior=SQUARE, holes=(), label=0, area=100, confidence=0.75):
    rings = tuple(np.array(hole, np.int32) for hole in holes)
    return Region(label, np.array(exterior, np.int32), rings, area, confidence)


def annotate(regions, scale=(2.0, 2.0), **others):
    return Annotations("case.svs", PALETTES["bcss"], tuple(regions), scale, 0.5, **others)


def regions_of(labels: np.ndarray) -> list[Region]:
    """Connected regions (4-connectivity) of ``(H, W)`` labels, as unions of pixel squares."""
    regions = []
    for label in sorted(set(labels.ravel().tolist()) - {BACKGROUND}):
        numbered, count = ndimage.label(labels == label)
        for number in range(1, count + 1):
            y, x = np.nonzero(numbered == number)
            polygon = shapely.union_all(shapely.box(x, y, x + 1, y + 1))
            holes = [shapely.get_coordinates(ring) for ring in polygon.interiors]
            outside = shapely.get_coordinates(polygon.exterior)
            regions.append(make_region(outside, holes, label, len(y), number / (count + 1)))
    return regions
