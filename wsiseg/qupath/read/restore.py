"""Restore outlines that QuPath 0.6 and 0.7 exported incompletely from our own file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import shapely

from wsiseg.qupath.form.java_area import cut_rows
from wsiseg.qupath.read.features import Feature

__all__ = ["restore_outlines"]

_SNAP = 0.02  # tolerance in px: both files are rounded to 0.01


def restore_outlines(
    features: Sequence[Feature], own: Sequence[Feature]
) -> tuple[list[Feature], int]:
    """Complete the features of an export that QuPath truncated and nobody edited.

    A feature gets the outline with the same id in `own`, if Java cuts that outline (`java_area`)
    and the feature equals it without some of the pieces, which nobody would draw. Edited outlines
    and all classes are kept.

    Returns
    -------
    All features, in their order, and how many were restored.
    """
    own_outlines = {feature.id: feature.geometry for feature in own if feature.id is not None}
    restored, count = [], 0
    for feature in features:
        outline = own_outlines.get(feature.id) if feature.id is not None else None
        if outline is not None and _lost_pieces(feature.geometry, outline):
            feature = replace(feature, geometry=outline)
            count += 1
        restored.append(feature)
    return restored, count


def _lost_pieces(shape: Any, outline: Any) -> bool:
    """Whether `shape` is `outline` without some of the pieces into which Java cuts it."""
    if outline.geom_type != "Polygon" or len(outline.interiors):
        return False
    if shape.geom_type not in ("Polygon", "MultiPolygon") or shape.area >= outline.area:
        return False
    rows = cut_rows(shapely.get_coordinates(outline))
    if not len(rows) or not shapely.is_valid(shape):
        return False
    west, top, east, bottom = outline.bounds
    strips = [shapely.box(west, y, east, end) for y, end in pairwise([top, *rows, bottom])]
    pieces = shapely.get_parts(shapely.intersection(outline, strips))
    kept = shapely.area(shapely.intersection(pieces, shape)) > shapely.area(pieces) / 2
    remaining = shapely.union_all(pieces[kept & (shapely.area(pieces) > 0)])  # a line has none
    # Differences by rounding alone are so thin that the negative buffer removes them.
    return bool(shapely.buffer(shapely.symmetric_difference(remaining, shape), -_SNAP).is_empty)
