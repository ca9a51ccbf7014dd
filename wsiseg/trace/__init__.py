"""Convert label rasters to exact polygons, at once or block by block with the same result."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from wsiseg.annotations import BACKGROUND, Region
from wsiseg.errors import GeometryError
from wsiseg.geometry import Box
from wsiseg.trace.absorb import absorb_small
from wsiseg.trace.block import BlockTrace, trace_block
from wsiseg.trace.contacts import Contacts, find_contacts, paint_block
from wsiseg.trace.merge import merge_blocks
from wsiseg.trace.parts import margin_box
from wsiseg.trace.simplify import (
    SMOOTH_UNITS,
    polygon_areas,
    simplify_regions,
    smooth_regions,
)

__all__ = [
    "SMOOTH_UNITS",
    "BlockTrace",
    "Contacts",
    "absorb_small",
    "find_contacts",
    "margin_box",
    "merge_blocks",
    "paint_block",
    "polygon_areas",
    "simplify_regions",
    "smooth_regions",
    "trace_block",
    "trace_regions",
]

_BLOCK = 2048  # a block of this side fits in the processor's cache


def trace_regions(
    labels: NDArray[np.uint8],
    confidence: NDArray[np.uint8] | None = None,
    background: int = BACKGROUND,
) -> list[Region]:
    """Trace every 4-connected region of equal labels, as a pixel-edge polygon with holes.

    Parameters
    ----------
    labels
        ``(H, W)`` uint8.
    confidence
        ``(H, W)`` uint8, 255 = certain; without it, every region's confidence is 1.
    background
        Label that gets no region.

    Returns
    -------
    list of Region
        Sorted by label, then by the exterior's first vertex (y, x). Every ring begins at its
        smallest ``(y, x)``, is simple and has no collinear vertices; exteriors run clockwise on
        the screen, holes counterclockwise. All polygons are valid, and their areas are exact.

    Raises
    ------
    GeometryError
        If `labels` is not an ``(H, W)`` uint8 array, or `confidence` has another shape or dtype.
    """
    for name, array in (("labels", labels), ("confidence", confidence)):
        if array is not None and (array.shape != labels.shape or array.dtype != np.uint8):
            raise GeometryError(
                f"{name} is {array.dtype} {array.shape}; uint8 of {labels.shape} is needed"
            )
    if labels.ndim != 2:
        raise GeometryError(f"labels has {labels.ndim} dimensions; (height, width) is needed")
    raster = Box(0, 0, labels.shape[1], labels.shape[0])
    columns, rows = (range(0, length, _BLOCK) for length in (raster.width, raster.height))
    traces = {}
    for i, (y, x) in enumerate(product(rows, columns)):
        box = margin_box(Box(x, y, _BLOCK, _BLOCK).intersect(raster), raster)
        scores = None if confidence is None else _crop(confidence, box, 0)
        traces[i] = trace_block(_crop(labels, box, background), scores, (x, y), background)
    return merge_blocks(traces, len(columns), confidence is not None)


def _crop(array: NDArray[np.uint8], box: Box, outside: int) -> NDArray[np.uint8]:
    """Crop `array` to `box`; pixels outside the array are `outside`."""
    inside = box.intersect(Box(0, 0, array.shape[1], array.shape[0]))
    out = np.full((box.height, box.width), outside, np.uint8)
    out[inside.slices(box)] = array[inside.slices()]
    return out
