"""Shapes of label files, moved to the raster and joined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely

from wsiseg.config import LabelConfig
from wsiseg.store import SlideStore

__all__ = ["Affine", "join", "place_of", "to_raster"]

Affine = tuple[tuple[float, float], tuple[float, float]]
"""Level-0 position ``(x, y)`` of the file's (0, 0), and level-0 px per raster px."""


def place_of(store: SlideStore, config: LabelConfig, level0: bool = False) -> Affine:
    """Return the transform from a file's pixels to the store's raster."""
    cropped = config.origin == "qupath" and not level0
    origin = store.slide["bounds"][:2] if cropped else (0, 0)
    x, y = store.slide["mpp"]
    return (origin[0], origin[1]), (store.mpp / x, store.mpp / y)


def to_raster(shape: Any, place: Affine) -> Any:
    """Transform a shape, or an array of shapes, from a file's pixels to raster pixels."""
    origin, scale = (np.array(pair) for pair in place)
    return shapely.transform(shape, lambda points: (points + origin) / scale)


def join(shapes: Sequence[Any]) -> Any:
    """Return the union of areas, even if their rings are invalid."""
    return shapely.union_all([shapely.make_valid(shape) for shape in shapes])
