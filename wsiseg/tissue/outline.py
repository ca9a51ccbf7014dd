"""Convert a slide's tissue mask to polygons that users may edit, and back."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from wsiseg.annotations import BACKGROUND, Annotations, Palette, Region
from wsiseg.errors import GeoJsonError
from wsiseg.geometry import Size
from wsiseg.qupath import (
    Finding,
    describe_left_out,
    read_facts,
    read_origin,
    read_stamp,
    write_geojson,
)
from wsiseg.slide import Slide
from wsiseg.store import SlideStore
from wsiseg.trace import trace_regions

__all__ = ["Place", "read_detection", "read_mask", "write_mask"]

_LOG = logging.getLogger(__name__)

Mask = NDArray[np.bool_]

_STEP = 0.01
"""Level-0 px of the raster of written outlines; QuPath keeps no finer ones."""
_PALETTE = Palette(("Tissue",), ((120, 120, 120),))


class Place(NamedTuple):
    """The position of a mask on its slide."""

    slide: Slide
    mpp: float
    """µm/px of the mask."""
    origin: tuple[int, int]
    """Level-0 pixel that is (0, 0) in the file, unless that states another."""


def write_mask(store: SlideStore, origin: tuple[int, int], path: Path) -> None:
    """Write the outline of a store's detected mask; `origin` as in `Place`.

    The mask's last column and row may reach beyond the slide; the outline ends at its edge.
    """
    mask, mpp, detection = store.read_tissue()
    labels = np.where(mask, 0, BACKGROUND).astype(np.uint8)
    own = np.array(store.slide["mpp"], np.float64)
    size = np.array(store.slide.get("size", (np.inf, np.inf)))
    regions = [_cut(region, mpp / own, size) for region in trace_regions(labels)]
    annotations = Annotations(
        slide=store.slide["name"],
        palette=_PALETTE,
        regions=tuple(region for region in regions if region.area_px > 0),
        scale=(_STEP, _STEP),
        mpp=float(np.sqrt(own.prod())) * _STEP,
        origin=origin,
        provenance={"tissue": detection},
        locked=False,  # users may edit it
    )
    write_geojson(annotations, path)


def _cut(region: Region, scale: NDArray[np.float64], size: NDArray[np.float64]) -> Region:
    """Place a region of the mask on a raster of `_STEP`, cut at the slide's `size` in px."""
    exterior, *holes = (
        np.rint(np.minimum(ring * scale, size) / _STEP).astype(np.int32)
        for ring in (region.exterior, *region.holes)
    )
    area = _area(exterior) - sum(map(_area, holes))
    return Region(region.label, exterior, tuple(holes), area, region.confidence)


def _area(ring: NDArray[np.int32]) -> int:
    x, y = ring.T.astype(np.int64)
    return abs(int((x[:-1] * y[1:] - x[1:] * y[:-1]).sum())) // 2


def read_detection(path: Path) -> str:
    """Return the digest of the detection in `path`; empty if its features were edited."""
    return str((read_stamp(path) or {}).get("tissue", ""))


def read_mask(path: Path, place: Place) -> tuple[Mask, str]:
    """Read the mask ``(h, w)`` of the polygons in `path`, and a note about what was left out.

    The mask is set where a polygon contains the pixel's centre. A vertex on the slide's right or
    lower edge, or little beyond it, stands for the edge of the mask's last pixel, whose centre may
    lie beyond the slide.

    Raises
    ------
    GeoJsonError
        If the file cannot be read, or all its features are broken.
    """
    slide, mpp, expected = place
    findings: list[Finding] = []
    features, facts = read_facts(path, findings)
    origin = read_origin(facts, path) or expected
    note = describe_left_out(findings)
    if note and not features:
        raise GeoJsonError(f"{path}: {note}")
    if note:
        note = f"tissue outline {path.name}: {note}"
        _LOG.warning("%s: %s", slide.path.name, note)
    scale, size = mpp / np.array(slide.mpp), slide.raster_size(mpp)
    edge = (np.array(slide.size) - _STEP) / scale
    tissue, ignored = np.zeros((2, size.height, size.width), bool)
    for feature in features:
        target = ignored if feature.is_ignored else tissue
        for part in shapely.get_parts(feature.geometry):
            if isinstance(part, shapely.Polygon):
                rings = [
                    _reach_edge((shapely.get_coordinates(ring) + np.array(origin)) / scale, edge)
                    for ring in shapely.get_rings(part)
                ]
                _fill(target, rings, size)
    return tissue & ~ignored, note


def _reach_edge(points: NDArray[np.float64], edge: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move points ``(n, 2)`` x, y from the slide's `edge` on to the end of the mask's pixel."""
    ends = np.ceil(edge)
    return np.where((points >= edge) & (points < ends), ends, points)


def _fill(mask: Mask, rings: list[NDArray[np.float64]], size: Size) -> None:
    """Set the pixels of `mask` whose centres lie inside an odd number of `rings` ``(n, 2)`` x, y.

    Each edge toggles, in every row whose centre line it crosses, all pixels to its right.
    """
    start = np.concatenate([ring[:-1] for ring in rings])
    stop = np.concatenate([ring[1:] for ring in rings])
    ends = np.sort(np.stack([start[:, 1], stop[:, 1]]), axis=0)
    low, high = np.clip(np.ceil(ends - 0.5), 0, size.height).astype(np.int64)
    edge = np.repeat(np.arange(len(low)), high - low)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(high - low) - high, high - low)
    if not len(row):
        return
    slope = (stop[edge, 0] - start[edge, 0]) / (stop[edge, 1] - start[edge, 1])
    x = start[edge, 0] + (row + 0.5 - start[edge, 1]) * slope
    col = np.clip(np.ceil(x - 0.5), 0, size.width).astype(np.int64)
    top, left = int(row.min()), int(col.min())
    height, width = int(row.max()) + 1 - top, int(col.max()) + 1 - left
    toggles = np.bincount((row - top) * width + col - left, minlength=height * width)
    inside = np.cumsum(toggles.reshape(height, width), axis=1) % 2 == 1
    mask[top : top + height, left : left + width] |= inside[:, : size.width - left]
