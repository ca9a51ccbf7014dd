"""A correction as a GeoJSON feature; `corrections.py` has the kinds and the file."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import shapely
from shapely.errors import ShapelyError
from shapely.geometry.base import BaseGeometry

from wsiseg.annotations import UNSURE, Palette, color_new_class
from wsiseg.errors import DataError
from wsiseg.qupath import Origin

__all__ = [
    "CHECKED",
    "IGNORED",
    "Correction",
    "Feature",
    "check_new_class",
    "extend_palette",
    "kind_of",
    "make_area",
    "make_feature",
    "move_plain",
    "read_correction",
    "rename_area",
    "take_area",
]

CHECKED, IGNORED = "Checked*", "Ignore*"
"""QuPath measures no class whose name ends in an asterisk."""
_COLORS = {CHECKED: (40, 120, 200), IGNORED: (180, 180, 180)}
_MAX_POINTS = 50_000
_LONGEST_NAME = 60

Feature = dict[str, Any]


class Correction(NamedTuple):
    """What a feature says, once it was read."""

    id: str
    kind: str
    """As `kind_of` says; never empty."""
    class_name: str
    color: Any
    """Of its class; None if there is none."""
    was: Any
    """The class from the run; None if it was drawn."""
    shape: BaseGeometry
    """In the file's pixels; not empty, but its rings may be invalid."""


def read_correction(feature: Feature) -> Correction | None:
    """Read a correction; None for other features, and for one that is damaged.

    Another program may have left it without an id, a class or a shape that can be read.
    """
    kind = kind_of(feature)
    if not kind:
        return None
    # Shapely indexes the parts of a MultiPolygon without a look at whether they have rings.
    errors = KeyError, IndexError, TypeError, ValueError, AttributeError, ShapelyError
    with suppress(*errors):
        shape = shapely.geometry.shape(feature["geometry"])
        classification = feature["properties"]["classification"]
        name, color = str(classification["name"]), classification.get("color")
        was = feature["properties"]["metadata"].get("from")
        if not shape.is_empty:
            return Correction(str(feature["id"]), kind, name, color, was, shape)
    return None


def make_feature(
    kind: str, geometry: BaseGeometry, class_name: str, palette: Palette,
    identity: str | None = None, was: str | None = None, of_map: str | None = None,
) -> Feature:  # fmt: skip
    """Make a feature of the file; see the module for the values of `kind`, and the metadata."""
    said = {"wsiseg": kind, "from": was, "map": of_map}
    metadata = {name: text for name, text in said.items() if text is not None}
    return {
        "type": "Feature",
        "id": identity or str(uuid.uuid4()),
        "geometry": _plain(geometry),
        "properties": {
            "objectType": "annotation",
            "classification": _classify(class_name, palette),
            "metadata": metadata,
        },
    }


def rename_area(area: Feature, class_name: str, palette: Palette) -> Feature:
    """Give a drawn area another class; raises `DataError` for any other feature."""
    if kind_of(area) != "drawn":
        raise DataError("only a drawn area has a class that can be changed so")
    classification = _classify(class_name, palette)
    return {**area, "properties": {**area["properties"], "classification": classification}}


def _classify(class_name: str, palette: Palette) -> dict[str, Any]:
    """Return QuPath's classification of a class: its name and colour."""
    colors = dict(zip(palette.names, palette.colors, strict=True)) | _COLORS
    color = colors.get(class_name) or color_new_class(class_name, list(colors.values()))
    return {"name": class_name, "color": list(color)}


def extend_palette(palette: Palette, features: Iterable[Feature]) -> Palette:
    """Return `palette` with the classes that only corrections have, in their colours."""
    colors = dict(zip(palette.names, palette.colors, strict=True))
    for feature in filter(kind_of, features):
        name, color = _class_of(feature)
        if color is not None and name not in _COLORS:
            colors.setdefault(name, color)
    return Palette(tuple(colors), tuple(colors.values()))


def check_new_class(given: Any, palette: Palette) -> str:
    """Return the name of a class that the map does not have.

    Raises
    ------
    DataError
        If it is no name, has another meaning for labels, or looks like a class of the map.
    """
    from wsiseg.labels.mark import classify
    from wsiseg.labels.names import find_lookalikes

    name = given.strip() if isinstance(given, str) else ""
    if not (name and name.isprintable() and len(name) <= _LONGEST_NAME):
        raise DataError(f"a class needs a name of 1 to {_LONGEST_NAME} letters on one line")
    if classify(name, {})[0] != "class" or name == UNSURE:
        raise DataError(f"{name!r} has another meaning; choose another name for the class")
    alike = find_lookalikes({**dict.fromkeys(palette.names, 0), name: 1}, palette.names)
    if alike:
        raise DataError(f"{name!r} looks like {alike[0][0]!r}, which the map has: use that")
    return name


def make_area(points: Any, size: tuple[float, float]) -> BaseGeometry:
    """Make an area on the slide from a drawn line of points ``[[x, y], ...]``.

    A line that crosses itself is made valid. Coordinates are rounded to 0.01 px.

    Raises
    ------
    DataError
        If it is not an area, or is outside the slide of `size` pixels.
    """
    if not isinstance(points, list) or not 3 <= len(points) <= _MAX_POINTS:
        raise DataError(f"an area needs a list of 3 to {_MAX_POINTS:,} points")
    if not all(
        isinstance(point, list)
        and len(point) == 2
        and all(type(at) in (int, float) and abs(at) < 1e9 for at in point)  # no NaN, no bool
        for point in points
    ):
        raise DataError("a point is two numbers of at most nine digits, x and y")
    shape = shapely.make_valid(shapely.Polygon(points))
    shape = shapely.set_precision(shape.intersection(shapely.box(0, 0, *size)), 0.01)
    area = take_area(shape)
    if area is None:
        raise DataError("the points enclose no area on the slide")
    return area


def take_area(shape: BaseGeometry) -> BaseGeometry | None:
    """Return the polygons of a shape; None if it has none. A single one is no MultiPolygon."""
    parts = [one for one in shapely.get_parts(shape) if one.geom_type == "Polygon" and one.area]
    if not parts:
        return None
    single: BaseGeometry = parts[0]
    return single if len(parts) == 1 else shapely.MultiPolygon(parts)


def move_plain(features: Sequence[Feature], origin: Origin, target: Origin) -> list[Feature]:
    """Return features of a file of `origin` in the pixels of one of `target`, as plain JSON.

    Only coordinates change, exactly; those that make no shape move, too.
    """
    x, y = (start - end for start, end in zip(origin, target, strict=True))
    shapes = ("geometry", "nucleusGeometry")  # of a cell, which QuPath may have added
    return [
        {name: _shift(value, x, y) if name in shapes else value for name, value in one.items()}
        for one in features
    ]


def _shift(value: Any, x: float, y: float) -> Any:
    """Return a geometry, or a part of it, with each position moved."""
    match value:
        case dict():
            moving = ("coordinates", "geometries")
            return {name: _shift(v, x, y) if name in moving else v for name, v in value.items()}
        case [int() | float() as left, int() | float() as top, *others]:
            return [_add(left, x), _add(top, y), *others]
        case list():
            return [_shift(one, x, y) for one in value]
    return value


def _add(place: float, by: float) -> float:
    """Return the sum, to 1e-6; a whole number as an integer, as `_plain` has it."""
    moved = round(float(place) + by, 6)
    return int(moved) if moved.is_integer() else moved


def kind_of(feature: Feature) -> str:
    """Return `reclassified`, `deleted`, `drawn` or `checked`; empty for other features."""
    properties = feature.get("properties")
    metadata = properties.get("metadata") if isinstance(properties, dict) else None
    kind = metadata.get("wsiseg") if isinstance(metadata, dict) else None
    return kind if kind in ("reclassified", "deleted", "drawn", "checked") else ""


def _class_of(feature: Feature) -> tuple[str, tuple[int, int, int] | None]:
    """Return the name and colour of a correction's class; None if it has no colour."""
    classification = feature["properties"].get("classification")
    known = classification if isinstance(classification, dict) else {}
    match known.get("color"):
        case [int(red), int(green), int(blue)]:
            return str(known.get("name")), (red, green, blue)
    return str(known.get("name")), None


def _plain(geometry: BaseGeometry) -> dict[str, Any]:
    """Convert to GeoJSON with at most two decimals, and whole coordinates as integers."""

    def tidy(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [tidy(one) for one in value]
        rounded = round(float(value), 2)
        return int(rounded) if rounded.is_integer() else rounded

    shape = shapely.geometry.mapping(geometry)
    return {"type": shape["type"], "coordinates": tidy(shape["coordinates"])}
