"""Measurements of each class on one slide."""

from __future__ import annotations

from math import pi

import numpy as np
from numpy.typing import NDArray

from wsiseg.annotations import Annotations, Region
from wsiseg.report.colors import to_hex

__all__ = ["measure_classes"]

_CHUNK = 4096  # regions measured at a time, to bound the copies of points


def measure_classes(annotations: Annotations, tissue_mm2: float) -> list[dict[str, object]]:
    """Measure each class: one row per class in palette order, absent ones too.

    Parameters
    ----------
    tissue_mm2
        Tissue area of the slide in mm².

    Returns
    -------
    Rows of slide, class, area_mm2, fraction_of_tissue, n_regions, perimeter_um, crofton_um,
    mean_confidence (weighted by area; empty without regions) and color (#rrggbb).

    ``perimeter_um`` is the length of the outlines as drawn, holes included. Along pixel edges that
    is too long by up to √2, as a slanting border is a staircase. ``crofton_um`` corrects it: by
    Cauchy and Crofton, a length is, on average over all directions, π/4 of the distances along x
    and y. So it is right for borders without a preferred direction, exactly so for a circle; an
    upright square comes out 21 % too short, one on its tip 11 % too long.
    """
    palette, count = annotations.palette, len(annotations.palette)
    labels = np.array([region.label for region in annotations.regions], np.intp)
    pixels = np.array([region.area_px for region in annotations.regions], np.float64)
    confidence = np.array([region.confidence for region in annotations.regions], np.float64)
    areas = np.bincount(labels, pixels, count)
    weighted = np.bincount(labels, pixels * confidence, count)
    regions = np.bincount(labels, minlength=count)
    lengths = _measure_outlines(annotations) * annotations.mpp
    rows: list[dict[str, object]] = []
    for label, (name, color) in enumerate(zip(palette.names, palette.colors, strict=True)):
        area = float(areas[label]) * annotations.mpp**2 / 1e6
        rows.append(
            {
                "slide": annotations.slide,
                "class": name,
                "area_mm2": area,
                "fraction_of_tissue": area / tissue_mm2 if tissue_mm2 > 0 else 0.0,
                "n_regions": int(regions[label]),
                "perimeter_um": float(lengths[label, 0]),
                "crofton_um": float(lengths[label, 1]) * pi / 4,
                "mean_confidence": (
                    round(float(weighted[label] / areas[label]), 6) if areas[label] else ""
                ),
                "color": to_hex(color),
            }
        )
    return rows


def _measure_outlines(annotations: Annotations) -> NDArray[np.float64]:
    """Return ``(K, 2)``: lengths of each class's outlines, direct and along x plus y, in pixels."""
    totals = np.zeros((len(annotations.palette), 2))
    for first in range(0, len(annotations.regions), _CHUNK):
        _add_outlines(annotations.regions[first : first + _CHUNK], totals)
    return totals


def _add_outlines(regions: tuple[Region, ...], totals: NDArray[np.float64]) -> None:
    rings = [ring for region in regions for ring in (region.exterior, *region.holes)]
    counts = [len(ring) for ring in rings]
    labels = [label for region in regions for label in [region.label] * (1 + len(region.holes))]
    owner = np.repeat(labels, counts)
    steps = np.abs(np.diff(np.concatenate(rings), axis=0)).astype(np.float64)
    steps[np.cumsum(counts)[:-1] - 1] = 0  # from one ring to the next
    for column, length in enumerate((np.hypot(*steps.T), steps.sum(axis=1))):
        totals[:, column] += np.bincount(owner[:-1], length, len(totals))
