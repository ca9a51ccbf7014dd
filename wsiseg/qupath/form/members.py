"""The rules about a feature's members, one function each; geometry has its own in `shapes`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

__all__ = [
    "MEMBER_RULES",
    "MISPLACED",
    "OBJECT_TYPES",
    "Broken",
    "is_java_number",
    "is_root",
    "is_uuid",
]

Broken = Iterator[tuple[str, str]]
"""(rule, message) of each rule that a feature breaks."""

OBJECT_TYPES = ("annotation", "detection", "tile", "cell", "tmaCore", "root", "unknown")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_PLANE_KEYS = {"c", "z", "t"}
_JAVA_NUMBER = re.compile(
    r"[\x00-\x20]*[+-]?(NaN|Infinity|"
    r"(([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
    r"|0[xX]([0-9a-fA-F]+\.?|[0-9a-fA-F]*\.[0-9a-fA-F]+)[pP][+-]?[0-9]+)[fFdD]?)[\x00-\x20]*"
)
MISPLACED = ("objectType", "name", "classification", "measurements", "isLocked", "color")


def check_id(feature: dict[str, Any]) -> Broken:
    """A UUID is kept; null loses the file; anything else is replaced."""
    if "id" not in feature:
        return
    value = feature["id"]
    if value is None or isinstance(value, dict | list):
        yield "id-null", '"id" is null or no text, which loses the file; leave it out'
        return
    if not is_uuid(str(value)):
        yield "id-uuid", f'"id" {value!r} is no UUID; QuPath replaces it by a random one'


def check_geometry(feature: dict[str, Any]) -> Broken:
    """A geometry is needed, and its plane holds nothing but c, z and t."""
    geometry = feature.get("geometry")
    if geometry == {} and is_root(feature):
        return  # as QuPath exports it, and reads it again
    if not isinstance(geometry, dict):
        what = "missing" if "geometry" not in feature else "null or no object"
        yield "geometry", f'"geometry" is {what}, which loses the file'
        return
    plane = geometry.get("plane", {})
    if not isinstance(plane, dict):
        yield "plane", '"plane" is no object; leave it out'
    elif not plane.keys() <= _PLANE_KEYS:
        unknown = sorted(plane.keys() - _PLANE_KEYS)
        yield "plane", f'"plane" holds {unknown}; only c, z and t are allowed'


def check_properties(feature: dict[str, Any]) -> Broken:
    """Properties may be absent, but not null."""
    if "properties" in feature and not isinstance(feature["properties"], dict):
        yield "properties", '"properties" is null or no object; leave it out, or write {}'


def check_misplaced(feature: dict[str, Any]) -> Broken:
    """Members beside ``properties`` are ignored."""
    misplaced = [name for name in MISPLACED if name in feature]
    if misplaced:
        yield "feature-members", f"{misplaced} are ignored on the feature; put them in properties"


def check_object_type(feature: dict[str, Any]) -> Broken:
    """Null loses the file; an unknown type becomes an annotation."""
    properties = _properties(feature)
    if "objectType" not in properties:
        return
    value = properties["objectType"]
    if not isinstance(value, str):
        yield "object-type", '"objectType" is null or no text; leave it out, or write "annotation"'
    elif value not in OBJECT_TYPES:
        yield "object-type-unknown", f'"objectType" {value!r} is unknown; it becomes an annotation'


def check_name(feature: dict[str, Any]) -> Broken:
    """An object's name is text, or left out."""
    properties = _properties(feature)
    if "name" in properties and (
        properties["name"] is None or isinstance(properties["name"], dict | list)
    ):
        yield "name", '"name" is null or no text, which loses the file; leave it out'


def check_color(feature: dict[str, Any]) -> Broken:
    """An object's colour is ``[r, g, b]`` or a packed integer."""
    value = _properties(feature).get("color")
    if isinstance(value, str) or (isinstance(value, list) and not _is_triple(value)):
        yield "color", f'"color" {value!r} is no [r, g, b] of numbers'


def check_measurements(feature: dict[str, Any]) -> Broken:
    """Numbers by name, or the older list of name and value."""
    value = _properties(feature).get("measurements")
    if isinstance(value, list):
        known = [item for item in value if isinstance(item, dict) and "name" in item]
        if len(known) != len(value):
            yield "measurements", '"measurements" is a list of something else than name and value'
        pairs = [(item["name"], item.get("value")) for item in known]
    else:
        pairs = list(value.items()) if isinstance(value, dict) else []
    for name, number in pairs:
        if isinstance(number, str) and is_java_number(number):
            continue
        if isinstance(number, bool) or not isinstance(number, int | float):
            yield "measurements", f"the measurement {name!r} is {number!r}, not a number"


def check_metadata(feature: dict[str, Any]) -> Broken:
    """Metadata are flat."""
    value = _properties(feature).get("metadata")
    if isinstance(value, dict) and any(isinstance(item, dict | list) for item in value.values()):
        yield "metadata", '"metadata" holds nested values, which QuPath drops'


def check_classification(feature: dict[str, Any]) -> Broken:
    """Text, null, or an object of a name and a colour."""
    properties = _properties(feature)
    value = properties.get("classification")
    if value is None or value == {}:
        return
    if isinstance(value, str):
        yield from _check_class_name(value)
    elif not isinstance(value, dict):
        yield "class", f'"classification" is {value!r}; write text, or a name and a color'
    elif "name" not in value and "names" not in value:
        yield "class-name", '"classification" has no "name"'
    else:
        names = [value["name"]] if "name" in value else value["names"]
        for name in names if isinstance(names, list) else [names]:
            yield from _check_class_name(name)
        yield from _check_class_color(value)


def is_root(feature: dict[str, Any]) -> bool:
    """Whether this is the root of QuPath's hierarchy, which has no shape of its own."""
    properties = feature.get("properties")
    of_root = isinstance(properties, dict) and properties.get("objectType") == "root"
    return of_root and feature.get("geometry") in (None, {})


def is_java_number(text: str) -> bool:
    """Whether ``Double.parseDouble`` takes this, as QuPath then takes it for a measurement.

    QuPath itself writes ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``.
    """
    return _JAVA_NUMBER.fullmatch(text) is not None


def is_uuid(text: str) -> bool:
    """Whether QuPath keeps this as an id."""
    return _UUID.fullmatch(text) is not None


def _check_class_name(name: Any) -> Broken:
    if not isinstance(name, str) or not name.strip():
        yield "class-name", f"the class name {name!r} is blank or no text"
    elif "\n" in name or "\r" in name:
        yield "class-name", f"the class name {name!r} holds a line break"
    elif ":" in name:
        yield "class-derived", f"the class name {name!r} holds ':', which makes a derived class"


def _check_class_color(value: dict[str, Any]) -> Broken:
    if "colorRGB" in value:  # as QuPath wrote it before 0.4: still read
        return
    if "color" not in value:
        yield "class-color", f"the class {value.get('name')!r} has no color, which loses the file"
        return
    color = value["color"]
    if color is None:
        return
    if not isinstance(color, list) or not _is_triple(color[:3]) or len(color) > 4:
        yield "class-color", f"the class colour {color!r} is no [r, g, b] of 3 integers"
    elif not all(isinstance(part, int) and 0 <= part <= 255 for part in color):
        yield "class-color-range", f"the class colour {color!r} is not made of integers 0 to 255"


def _is_triple(value: list[Any]) -> bool:
    return len(value) == 3 and all(
        isinstance(part, int | float) and not isinstance(part, bool) for part in value
    )


def _properties(feature: dict[str, Any]) -> dict[str, Any]:
    value = feature.get("properties")
    return value if isinstance(value, dict) else {}


MEMBER_RULES: tuple[Callable[[dict[str, Any]], Broken], ...] = (
    check_id,
    check_geometry,
    check_properties,
    check_misplaced,
    check_object_type,
    check_name,
    check_color,
    check_measurements,
    check_metadata,
    check_classification,
)
"""Every rule about members, in the order in which findings are listed."""
