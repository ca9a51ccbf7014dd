"""Repairs of a feature's members: one function for each of the rules in `rules`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from wsiseg.annotations import PALETTES
from wsiseg.qupath.form.members import MISPLACED, OBJECT_TYPES, is_java_number

__all__ = ["Change", "fix_members", "spell_number"]

Change = tuple[str, str, bool]
"""Rule, what was done, and whether something was lost."""

_COLORS = {
    name: list(color)
    for palette in PALETTES.values()
    for name, color in zip(palette.names, palette.colors, strict=True)
}


def fix_members(feature: dict[str, Any]) -> tuple[dict[str, Any], list[Change]]:
    """A copy of `feature` that breaks no rule about members but those of id and geometry."""
    feature = dict(feature)
    changes = []
    properties = feature.get("properties", {})
    if not isinstance(properties, dict):
        changes.append(("properties", '"properties" is an empty object now', False))
        properties = {}
    feature["properties"] = properties = dict(properties)
    changes += _move_misplaced(feature, properties)
    for fix in _FIXES:
        changes += fix(properties)
    return feature, changes


def _move_misplaced(feature: dict[str, Any], properties: dict[str, Any]) -> Iterator[Change]:
    for name in MISPLACED:
        if name in feature:
            value = feature.pop(name)
            if name in properties:
                yield "feature-members", f"{name!r} on the feature, as properties has one", True
            else:
                properties[name] = value
                yield "feature-members", f"{name!r} is in properties now", False


def _fix_object_type(properties: dict[str, Any]) -> Iterator[Change]:
    if "objectType" not in properties or properties["objectType"] in OBJECT_TYPES:
        return
    value = properties.pop("objectType")
    if not isinstance(value, str):
        yield "object-type", f"left out the objectType {value!r:.40}", False
        return
    known = {name.lower(): name for name in OBJECT_TYPES}
    properties["objectType"] = known.get(value.lower(), "annotation")
    yield "object-type-unknown", f"objectType {value!r} is {properties['objectType']!r} now", False


def _fix_name(properties: dict[str, Any]) -> Iterator[Change]:
    value = properties.get("name", "")
    if isinstance(value, str):
        return
    del properties["name"]
    if isinstance(value, int | float):
        properties["name"] = str(value)
    else:
        yield "name", f"left out the name {value!r:.40}", value is not None


def _fix_color(properties: dict[str, Any]) -> Iterator[Change]:
    value = properties.get("color")
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        if "color" in properties and value is None:
            del properties["color"]
        return
    color = _as_rgb(value)
    if color == value:
        return
    del properties["color"]
    if color is None:
        yield "color", f"the colour {value!r:.40}", True
    else:
        properties["color"] = color
        yield "color", f"the colour {value!r:.40} is {color} now", False


def _fix_measurements(properties: dict[str, Any]) -> Iterator[Change]:
    value = properties.get("measurements")
    if isinstance(value, list):
        known = [item for item in value if isinstance(item, dict) and "name" in item]
        if len(known) < len(value):
            yield "measurements", f"{len(value) - len(known)} measurements without a name", True
        pairs = [(str(item["name"]), item.get("value")) for item in known]
    elif isinstance(value, dict):
        pairs = list(value.items())
    else:
        if properties.pop("measurements", None) is not None:
            yield "measurements", f"measurements that are {value!r:.40}", True
        return
    kept = {}
    for name, number in pairs:
        settled = _as_measurement(number)
        if settled is None:
            yield "measurements", f"the measurement {name!r}, which is {number!r:.40}", True
        else:
            kept[name] = settled
            if settled is not number:
                yield "measurements", f"the measurement {name!r} is {settled} now", False
    as_list = [{"name": name, "value": number} for name, number in kept.items()]
    properties["measurements"] = as_list if isinstance(value, list) else kept


def _fix_metadata(properties: dict[str, Any]) -> Iterator[Change]:
    value = properties.get("metadata")
    if not isinstance(value, dict):
        return
    nested = [name for name, item in value.items() if isinstance(item, dict | list)]
    if nested:
        properties["metadata"] = value | {
            name: orjson.dumps(value[name]).decode() for name in nested
        }
        yield "metadata", f"the metadata {nested} are JSON text now", False


def _fix_classification(properties: dict[str, Any]) -> Iterator[Change]:
    value = properties.get("classification")
    if value is None or value == {}:
        return
    if isinstance(value, str):
        value = {"name": value}
        plain = True
    else:
        plain = False
    if not isinstance(value, dict):
        del properties["classification"]
        yield "class", f"the classification {value!r:.40}", True
        return
    names, changes = _settle_names(value)
    yield from changes
    if not names:
        del properties["classification"]
        yield "class-name", f"the classification {value!r:.60}, which has no name", True
        return
    if plain and not changes:
        return
    fixed = {k: v for k, v in value.items() if k not in ("name", "names")}
    fixed |= {"name": names[0]} if len(names) == 1 else {"names": names}
    yield from _settle_color(fixed, names)
    properties["classification"] = fixed


def _settle_names(value: dict[str, Any]) -> tuple[list[str], list[Change]]:
    """Names of a class and of those derived from it, each without a colon or a line break."""
    given = value["name"] if "name" in value else value.get("names", [])
    given = given if isinstance(given, list) else [given]
    changes: list[Change] = []
    names = []
    for name in given:
        if isinstance(name, int | float) and not isinstance(name, bool):
            name = str(name)
            changes.append(("class-name", f"the class name is the text {name!r} now", False))
        if not isinstance(name, str):
            continue
        flat = " ".join(re.split(r"[\r\n]+", name)).strip()
        if len(re.split(r"[\r\n]", name)) > 1:
            changes.append(("class-name", f"the class name {name!r:.60} is one line now", False))
        parts = [part.strip() for part in flat.split(":") if part.strip()]
        if ":" in flat:
            message = f"the class {flat!r:.60} is spelt as names derived from each other now"
            changes.append(("class-derived", message, False))
        names += parts
    return names, changes


def _settle_color(classification: dict[str, Any], names: list[str]) -> Iterator[Change]:
    """A colour as [r, g, b]; null, which QuPath takes, where none can be made out."""
    if "colorRGB" in classification:
        return
    if "color" not in classification:
        classification["color"] = _COLORS.get(names[0])
        message = f"the class {names[0]!r} has the color {classification['color']} now"
        yield "class-color", message, False
        return
    value = classification["color"]
    if value is None:
        return
    color = _as_rgb(value[:3] if isinstance(value, list) and len(value) == 4 else value)
    if color == value or (isinstance(value, list) and color == value[:3] and len(value) == 4
                          and isinstance(value[3], int) and 0 <= value[3] <= 255):  # fmt: skip
        return
    classification["color"] = color
    numbers = isinstance(value, list) and color is not None
    rule = "class-color-range" if numbers else "class-color"
    yield rule, f"the class colour {value!r:.40} is {color} now", color is None


def _as_rgb(value: Any) -> list[int] | None:
    """``[r, g, b]`` of 0..255 out of a list, a packed integer, ``#RRGGBB`` or shares of one."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return [value >> 16 & 255, value >> 8 & 255, value & 255]
    if isinstance(value, str):
        match = re.fullmatch(r"#?([0-9a-fA-F]{6})([0-9a-fA-F]{2})?", value.strip())
        return list(bytes.fromhex(match.group(1))) if match else None
    if not isinstance(value, list) or len(value) != 3:
        return None
    numbers = [_as_number(part) for part in value]
    if any(part is None for part in numbers):
        return None
    shares = any(isinstance(part, float) for part in value) and all(0 <= n <= 1 for n in numbers)
    return [min(max(round(part * 255 if shares else part), 0), 255) for part in numbers]


def _as_measurement(value: Any) -> Any:
    """What QuPath reads as a number; NaN and infinities as it spells them; else ``None``."""
    if isinstance(value, str) and is_java_number(value):
        return value
    try:
        number = float(value)
    except (OverflowError, TypeError, ValueError):
        return None
    return _as_number(value) if math.isfinite(number) else spell_number(number)


def spell_number(value: float) -> str:
    """NaN or an infinity as QuPath writes it."""
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _as_number(value: Any) -> Any:
    """A finite number as it is, one that is spelt out or true or false as one; else ``None``."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        return value if math.isfinite(value) else None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


_FIXES: tuple[Callable[[dict[str, Any]], Iterator[Change]], ...] = (
    _fix_object_type,
    _fix_name,
    _fix_color,
    _fix_measurements,
    _fix_metadata,
    _fix_classification,
)
