"""Draw regions back to pixels, window by window, at any µm/px."""

from __future__ import annotations

from copy import copy
from math import ceil

import numpy as np
from numpy.typing import NDArray

from wsiseg.annotations import Annotations
from wsiseg.geometry import Box, Size
from wsiseg.kernels import kernel
from wsiseg.store import SlideStore

__all__ = ["RegionRaster", "own_size"]


def own_size(store: SlideStore, annotations: Annotations) -> Size:
    """Return the slide's size in the regions' own pixels, which are finer if they were smoothed."""
    factor = round(store.mpp / annotations.mpp)
    return Size(store.grid.width * factor, store.grid.height * factor)


class RegionRaster:
    """The label raster that a slide's regions form, read by windows and never as a whole.

    A pixel has the label of the region that contains its centre, 255 if there is none. At the
    regions' own µm/px, regions that were not simplified give the raster that they were traced from.

    Parameters
    ----------
    annotations
        Regions that do not overlap, such as those of `outline_regions`.
    size
        Size of the raster in the regions' own pixels.
    mpp
        µm/px to draw at; the regions' own if not given.
    """

    def __init__(self, annotations: Annotations, size: Size, mpp: float | None = None) -> None:
        self._place(mpp or annotations.mpp, annotations.mpp, size)
        self._rings: list[NDArray[np.int32]] = []
        heights: list[int] = []
        for region in annotations.regions:
            self._rings += (region.exterior, *region.holes)
            heights += (region.label + 1, *[-region.label - 1] * len(region.holes))
        self._heights = np.array(heights, np.int16)
        self._extents = _measure_extents(self._rings)

    def _place(self, mpp: float, own_mpp: float, own_size: Size) -> None:
        self.mpp, self._own_mpp, self._own_size = mpp, own_mpp, own_size
        # Rounded first: 3 pixels of 0.1 are 1 of 0.3, not slightly more.
        self.size = Size(*(max(1, ceil(round(n * own_mpp / mpp, 6))) for n in own_size))
        self._scale = mpp / own_mpp  # the regions' pixels per pixel

    def at(self, mpp: float) -> RegionRaster:
        """Return the same regions at another µm/px, without a copy of them."""
        other = copy(self)
        other._place(mpp, self._own_mpp, self._own_size)
        return other

    def read(self, box: Box) -> NDArray[np.uint8]:
        """Draw the labels ``(H, W)`` uint8 of a box, which may reach past the raster."""
        steps = np.zeros((box.height, box.width + 1), np.int16)
        indices = self._find_rings(box)
        if len(indices):
            rings = [self._rings[i] for i in indices]
            starts = np.cumsum([0, *(len(ring) for ring in rings)])
            points = np.concatenate(rings)
            heights = self._heights[indices]
            _step_across(points, starts, heights, self._scale, (box.x, box.y), steps)
        return np.asarray(_sum_along(steps))

    def _find_rings(self, box: Box) -> NDArray[np.intp]:
        """Return the indices of rings that may have a pixel in the box."""
        left, top, right, bottom = self._extents
        s = self._scale
        rows = (top < box.bottom * s) & (bottom > box.y * s)
        return np.flatnonzero(rows & (left < box.right * s) & (right > box.x * s))


def _measure_extents(rings: list[NDArray[np.int32]]) -> NDArray[np.float64]:
    """Return the smallest x and y and the largest x and y of each ring: ``(4, R)``."""
    extents = np.empty((4, len(rings)))
    chunk = 4096  # limits the memory for copies of points
    for first in range(0, len(rings), chunk):
        part = rings[first : first + chunk]
        points = np.concatenate(part)
        starts = np.cumsum([0, *(len(ring) for ring in part[:-1])])
        columns = slice(first, first + len(part))
        extents[:2, columns] = np.minimum.reduceat(points, starts, axis=0).T
        extents[2:, columns] = np.maximum.reduceat(points, starts, axis=0).T
    return extents


@kernel
def _step_across(points, starts, heights, scale, corner, steps):  # type: ignore[no-untyped-def]  # numba infers the types
    """Add to `steps` by how much each ring changes the label from a pixel on, going right.

    ``points (N, 2)`` of all rings, ``starts (R + 1,)``, ``heights (R,)`` int16: what a ring adds
    inside. ``steps (H, W + 1)`` int16. The sign of a ring's area gives its direction.
    """
    rows, columns = steps.shape[0], steps.shape[1] - 1
    for ring in range(len(heights)):
        area = 0.0
        for i in range(starts[ring], starts[ring + 1] - 1):
            x, y = float(points[i, 0]), float(points[i, 1])
            area += x * points[i + 1, 1] - points[i + 1, 0] * y
        # With y down and positive area, an edge that goes up has the inside at its right.
        height = heights[ring] if area > 0 else -heights[ring]
        for i in range(starts[ring], starts[ring + 1] - 1):
            x0, y0, x1, y1 = points[i, 0], points[i, 1], points[i + 1, 0], points[i + 1, 1]
            if y0 == y1:
                continue
            step = height if y1 < y0 else -height
            if y1 < y0:  # from above, so that both regions of a border find the same crossings
                x0, y0, x1, y1 = x1, y1, x0, y0
            first = max(int(np.ceil(y0 / scale - 0.5)) - corner[1], 0)
            last = min(int(np.ceil(y1 / scale - 0.5)) - corner[1], rows)
            for row in range(first, last):
                x = x0
                if x1 != x0:
                    centre = (row + corner[1] + 0.5) * scale
                    x = x0 + (centre - y0) * (x1 - x0) / (y1 - y0)
                column = int(np.ceil(x / scale - 0.5)) - corner[0]
                steps[row, min(max(column, 0), columns)] += step


@kernel
def _sum_along(steps):  # type: ignore[no-untyped-def]  # numba infers the types
    """Return running sums of each row of `steps`, minus 1: a sum of 0 gives 255, the background."""
    out = np.empty((steps.shape[0], steps.shape[1] - 1), np.uint8)
    for row in range(out.shape[0]):
        total = -1
        for column in range(out.shape[1]):
            total += steps[row, column]
            out[row, column] = total & 255
    return out
