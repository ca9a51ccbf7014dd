"""Outlines that QuPath 0.6 and 0.7 lost part of in an export, taken from our own file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import shapely

from wsiseg.qupath.form.java_area import cut_rows
from wsiseg.qupath.read.features import Feature

__all__ = ["restore_outlines"]

_SNAP = 0.02  # px by which a border may lie elsewhere: both files are rounded to 0.01


def restore_outlines(
    features: Sequence[Feature], own: Sequence[Feature]
) -> tuple[list[Feature], int]:
    """The features of an export, whole again where QuPath lost part of what nobody touched.

    A feature takes the outline of the one of `own` with its id, if that is an outline that Java
    cuts (`java_area`), and if the feature's is that without some of the pieces: nobody draws that.
    Whatever was edited stays as it is, and so do the classes.

    Returns
    -------
    All features, in their order, and how many were restored.
    """
    known = {feature.id: feature.geometry for feature in own if feature.id is not None}
    restored, count = [], 0
    for feature in features:
        outline = known.get(feature.id) if feature.id is not None else None
        if outline is not None and _lost_pieces(feature.geometry, outline):
            feature = replace(feature, geometry=outline)
            count += 1
        restored.append(feature)
    return restored, count


def _lost_pieces(shape: Any, outline: Any) -> bool:
    """Whether `shape` is `outline` without some of the pieces that Java makes of it."""
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
    left = shapely.union_all(pieces[kept & (shapely.area(pieces) > 0)])  # a line has none
    # What differs by rounding alone is too thin to be left when its border is taken off.
    return bool(shapely.buffer(shapely.symmetric_difference(left, shape), -_SNAP).is_empty)
