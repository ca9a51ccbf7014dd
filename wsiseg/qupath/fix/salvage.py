"""Recover features from a file that is invalid or truncated."""

from __future__ import annotations

import codecs
import json
import math
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsiseg.errors import GeoJsonError
from wsiseg.qupath.fix.members import spell_number
from wsiseg.qupath.form.document import GEOMETRY_TYPES, is_plain, read_documents
from wsiseg.qupath.form.finding import Repair

__all__ = ["salvage_features", "scrub"]

_OWN = ("type", "features", "wsiseg_sha256")  # written again; the hash no longer applies
_DEEPEST = 60  # levels of nesting; orjson takes 254
_GEOMETRIES = {name.lower(): name for name in (*GEOMETRY_TYPES, "GeometryCollection")}


def salvage_features(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any], list[Repair]]:
    """Recover everything in the file that is a feature or can be read as one.

    Returns
    -------
    Features, the collection's other members, and the repairs that were needed.

    Raises
    ------
    GeoJsonError
        If the file cannot be read at all.
    """
    texts, findings = read_documents(path)
    repairs = [Repair(finding.rule, finding.message) for finding in findings]
    if not texts:
        texts = [_inflate(path)]
    features: list[dict[str, Any]] = []
    members: dict[str, Any] = {}
    for data in texts:
        text = _decode(data, repairs)
        tree = scrub(_parse(text, repairs), repairs)
        features += _collect(tree, repairs)
        if isinstance(tree, dict) and "features" in tree:
            members |= {k: v for k, v in tree.items() if k not in _OWN}
    return features, members, repairs


def _inflate(path: Path) -> bytes:
    """Decompress as much as possible of a truncated gzip file; one that is not packed is read."""
    raw = path.read_bytes()
    data = raw if is_plain(raw) else b""
    with suppress(zlib.error):
        data = data or zlib.decompressobj(wbits=31).decompress(raw)
    if not data:
        raise GeoJsonError(f"{path}: cannot be decompressed at all; get the file again")
    return data


def _decode(data: bytes, repairs: list[Repair]) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        repairs.append(Repair("encoding", "read as UTF-16, written as UTF-8"))
        return data.decode("utf-16", "replace")
    if data.startswith(codecs.BOM_UTF8):
        repairs.append(Repair("byte-order-mark", "left out the byte-order mark"))
        data = data[3:]
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        repairs.append(Repair("encoding", "read as Windows-1252, written as UTF-8"))
        return data.decode("cp1252", "replace")


def _parse(text: str, repairs: list[Repair]) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        repairs.append(Repair("json", "is nested too deeply to be read", dropped=True))
        return []
    except ValueError:
        pass
    lines = [line for line in text.split("\n") if line.strip()]
    elements = list(_parse_lines(lines))
    if len(elements) > 1:
        message = f"made one collection of {len(elements)} lines"
        repairs.append(Repair("newline-delimited", message))
        if len(elements) < len(lines):
            message = f"{len(lines) - len(elements)} lines are not JSON"
            repairs.append(Repair("json", message, dropped=True))
        return elements
    elements, end = _parse_whole_elements(text)
    message = f"kept {len(elements)} whole features; what follows character {end} is not JSON"
    repairs.append(Repair("json", message, dropped=True))
    return elements


def _parse_lines(lines: list[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            element = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(element, dict):
            yield element


def _parse_whole_elements(text: str) -> tuple[list[Any], int]:
    """Parse the first list of features as far as it is valid JSON; return where that ends."""
    decoder = json.JSONDecoder()
    key = text.find('"features"')
    at = text.find("[", max(key, 0)) + 1
    elements = []
    while at < len(text):
        if text[at] in " \t\r\n,":
            at += 1
            continue
        try:
            element, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            break
        elements.append(element)
    return elements, at


def scrub(tree: Any, repairs: list[Repair]) -> Any:
    """Remove what JSON cannot represent.

    NaN and Infinity become text in measurements, as QuPath writes them, and are left out elsewhere.
    """
    counts = _Counts()
    scrubbed = _scrub_value(tree, counts, 0)
    if counts.spelt:
        message = f"{counts.spelt} NaN or Infinity among measurements are text now"
        repairs.append(Repair("not-a-number", message))
    if counts.lost:
        message = f"{counts.lost} NaN or Infinity left out"
        repairs.append(Repair("not-a-number", message, dropped=True))
    if counts.deep:
        repairs.append(Repair("json", f"{counts.deep} values nested too deep", dropped=True))
    return scrubbed


@dataclass
class _Counts:
    """Numbers of changes by `_scrub_value`."""

    spelt: int = 0
    lost: int = 0
    deep: int = 0


def _scrub_value(value: Any, counts: _Counts, depth: int, measured: bool = False) -> Any:
    """Make `value` valid JSON; `measured` within the measurements of an object."""
    if isinstance(value, float) and not math.isfinite(value):
        if measured:
            counts.spelt += 1
            return spell_number(value)
        counts.lost += 1
        return None
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return _scrub_value(_as_float(value), counts, depth, measured)
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # lone surrogates
    if isinstance(value, dict | list) and depth > _DEEPEST:
        counts.deep += 1
        return None
    if isinstance(value, dict):
        items = (
            (k, v, _scrub_value(v, counts, depth + 1, measured or k == "measurements"))
            for k, v in value.items()
        )
        # Leave out NaN; null would break another rule.
        return {
            _scrub_value(key, counts, depth): new
            for key, old, new in items
            if new is not None or old is None
        }
    if isinstance(value, list):
        return [_scrub_value(item, counts, depth + 1, measured) for item in value]
    return value


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _collect(element: Any, repairs: list[Repair]) -> Iterator[dict[str, Any]]:
    """Yield features from collections, lists, bare geometries and objects without a type."""
    if isinstance(element, list):
        for member in element:
            yield from _collect(member, repairs)
        return
    kind = element.get("type") if isinstance(element, dict) else None
    if not isinstance(element, dict):
        repairs.append(Repair("top-level", f"{element!r:.40} is not a feature", dropped=True))
    elif isinstance(element.get("features"), list):
        if kind != "FeatureCollection":
            repairs.append(Repair("collection-type", 'wrote "type": "FeatureCollection"'))
        yield from _collect(element["features"], repairs)
    elif "geometry" in element or kind == "Feature":
        if kind != "Feature":
            repairs.append(Repair("feature-type", f'wrote "type": "Feature" for {kind!r:.40}'))
        yield {**element, "type": "Feature"}
    elif isinstance(kind, str) and kind.lower() in _GEOMETRIES:
        repairs.append(Repair("feature-type", f"made a feature of a bare {kind}"))
        yield {"type": "Feature", "geometry": element, "properties": {}}
    else:
        rule = "collection-features" if kind == "FeatureCollection" else "feature-type"
        repairs.append(Repair(rule, f"an element of type {kind!r:.40}", dropped=True))
