"""Shapes of label files, moved to the raster and joined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely

from wsiseg.config import LabelConfig
from wsiseg.qupath import Origin
from wsiseg.store import SlideStore

__all__ = ["Affine", "corner_of", "join", "origin_of", "place_of", "to_raster"]

Affine = tuple[tuple[float, float], tuple[float, float]]
"""Level-0 position ``(x, y)`` of the file's (0, 0), and level-0 px per raster px."""


def origin_of(store: SlideStore, config: LabelConfig, said: Origin | None = None) -> Origin:
    """Return the level-0 position of a file's (0, 0): what it `said`, else what `config` says."""
    if said is not None:
        return said
    return corner_of(store) if config.origin == "qupath" else (0, 0)


def corner_of(store: SlideStore) -> Origin:
    """Return the level-0 position of (0, 0) in QuPath: the corner of the slide's bounds."""
    x, y = store.slide["bounds"][:2]
    return float(x), float(y)


def place_of(store: SlideStore, config: LabelConfig, said: Origin | None = None) -> Affine:
    """Return the transform from a file's pixels to the store's raster; `said` as in `origin_of`."""
    x, y = store.slide["mpp"]
    return origin_of(store, config, said), (store.mpp / x, store.mpp / y)


def to_raster(shape: Any, place: Affine) -> Any:
    """Transform a shape, or an array of shapes, from a file's pixels to raster pixels."""
    origin, scale = (np.array(pair) for pair in place)
    return shapely.transform(shape, lambda points: (points + origin) / scale)


def join(shapes: Sequence[Any]) -> Any:
    """Return the union of areas, even if their rings are invalid."""
    return shapely.union_all([shapely.make_valid(shape) for shape in shapes])
