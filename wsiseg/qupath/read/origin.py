"""Where on its slide a GeoJSON file begins: the level-0 position of its (0, 0)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from wsiseg.errors import GeoJsonError
from wsiseg.qupath.form.shapes import LARGEST
from wsiseg.qupath.read.features import Feature

__all__ = ["Origin", "move_features", "read_origin"]

Origin = tuple[float, float]
"""Level-0 x, y of a file's (0, 0)."""

_DECIMALS = 6
"""After a move, so that what differed by nothing but the origin is equal."""


def read_origin(facts: Mapping[str, Any], path: Path) -> Origin | None:
    """Return the origin that a file's own facts state; None if it states none, as QuPath's do.

    Raises
    ------
    GeoJsonError
        If what it states is not two finite numbers; names `path`.
    """
    origin = facts.get("origin")
    if origin is None:
        return None
    if not isinstance(origin, list) or len(origin) != 2 or not all(map(_is_place, origin)):
        raise GeoJsonError(
            f"{path}: says that its origin is {str(origin)[:80]}; it needs to be two numbers, the "
            f"level-0 pixel at its (0, 0): correct it, or delete it if QuPath wrote the features"
        )
    return float(origin[0]), float(origin[1])


def _is_place(value: Any) -> bool:
    return type(value) in (int, float) and bool(abs(value) <= LARGEST)  # no NaN, no bool


def move_features(
    features: Sequence[Feature], origin: Origin | None, target: Origin | None
) -> list[Feature]:
    """Return features of a file of `origin` in the pixels of one of `target`.

    They stay as they are if either is not known.
    """
    if origin is None or target is None or origin == target:
        return list(features)
    shift = np.subtract(origin, target)
    shapes = shapely.transform(
        [one.geometry for one in features], lambda points: np.round(points + shift, _DECIMALS)
    )
    return [replace(one, geometry=shape) for one, shape in zip(features, shapes, strict=True)]
