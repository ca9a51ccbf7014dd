"""Extract GeoJSON features from the bytes of a file, in every form that QuPath accepts."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from wsiseg.errors import GeoJsonError
from wsiseg.qupath.form.finding import Finding
from wsiseg.qupath.form.stamp import STAMPED_END

__all__ = [
    "EXTENSIONS",
    "GEOMETRY_TYPES",
    "flatten_document",
    "is_plain",
    "parse_document",
    "parse_lines",
    "read_documents",
    "walk_children",
]

EXTENSIONS = (".geojson", ".json", ".zip", ".geojson.gz", ".json.gz")
"""File extensions that QuPath imports."""

_BATCH = 2_000_000  # bytes of JSON parsed at a time

GEOMETRY_TYPES = (
    "Point",
    "MultiPoint",
    "LineString",
    "MultiLineString",
    "Polygon",
    "MultiPolygon",
)
"""Geometry types that QuPath imports."""


def read_documents(path: Path) -> tuple[list[bytes], list[Finding]]:
    """Read and decompress the JSON texts of a file (several only in a zip).

    Raises
    ------
    GeoJsonError
        If the file itself cannot be read.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise GeoJsonError(f"{path}: cannot be read ({error.strerror})") from error
    findings = [] if _has_extension(path) else [Finding("extension", _extension_advice(path))]
    try:
        return _decompress(raw, path), findings
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:
        # RuntimeError: an encrypted zip.
        return [], [*findings, Finding("compression", f"cannot be decompressed ({error})")]


def _has_extension(path: Path) -> bool:
    return path.name.lower().endswith(EXTENSIONS)


def _extension_advice(path: Path) -> str:
    return (
        f"QuPath does not import files named like {path.name!r}; end the name in "
        f"{', '.join(EXTENSIONS[:-1])} or {EXTENSIONS[-1]}"
    )


def is_plain(raw: bytes) -> bool:
    """Whether these bytes of a file are JSON as it is, whatever the file's name says."""
    return raw[:99].removeprefix(codecs.BOM_UTF8).lstrip()[:1] in (b"{", b"[")


def _decompress(raw: bytes, path: Path) -> list[bytes]:
    if path.suffix.lower() in (".gz", ".zip") and is_plain(raw):
        raise OSError(f"it is not compressed; leave {path.suffix} out of its name")
    if path.suffix.lower() == ".gz" or raw[:2] == b"\x1f\x8b":
        return [gzip.decompress(raw)]
    if path.suffix.lower() != ".zip":
        return [raw]
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith(EXTENSIONS[:2])]
        if not names:
            raise OSError("it holds no .geojson and no .json")
        return [archive.read(name) for name in names]


def parse_document(text: bytes) -> tuple[Any, list[Finding]]:
    """Parse `text`; return the JSON tree, or ``None``, and what is wrong with the text."""
    findings = []
    if text.startswith(b"\xef\xbb\xbf"):
        findings.append(Finding("byte-order-mark", "begins with a byte-order mark; leave it out"))
        text = text[3:]
    try:
        return orjson.loads(text), findings
    except orjson.JSONDecodeError as error:
        tree, more = _diagnose(text, error)
        return tree, findings + more


def parse_lines(text: bytes) -> Iterator[list[dict[str, Any]]]:
    """Yield batches of features from a collection with one feature per line, such as ours.

    Only one batch is in memory; a file of 100,000 regions takes 1.5 GB as one tree.

    Raises
    ------
    ValueError
        If `text` turns out to have another form; use `parse_document` instead.
    """
    start, end = text.find(b"\n") + 1, text.rfind(b"\n]")
    head = text[:start]
    whole = end >= start - 1 and STAMPED_END.fullmatch(text, max(end, 0))
    if not head.endswith(b'"features":[\n') or not whole:
        raise ValueError("not one feature a line")
    # JSON strings escape line breaks, so a bare one always separates two tokens.
    if orjson.loads(head + b"]}").get("type") != "FeatureCollection":
        raise ValueError("not a collection")
    while start < end:
        stop = text.find(b",\n", min(start + _BATCH, end), end)
        stop = end if stop < 0 else stop
        batch = orjson.loads(b"[" + text[start:stop] + b"]")
        if not all(isinstance(member, dict) and _is_plain(member) for member in batch):
            raise ValueError("not plain features")
        yield batch
        start = stop + 2


def _is_plain(member: dict[str, Any]) -> bool:
    """Whether `member` is a feature without children."""
    properties = member.get("properties")
    nested = isinstance(properties, dict) and "childObjects" in properties
    return member.get("type") == "Feature" and not nested


def _diagnose(text: bytes, error: Exception) -> tuple[Any, list[Finding]]:
    """Find why `text` is not strict JSON; also return the tree if bare NaN is the only reason."""
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as problem:
        message = f"is not UTF-8 (byte {problem.start}); save it as UTF-8"
        return None, [Finding("encoding", message)]
    if _is_newline_delimited(text):
        message = "has one JSON object per line; make it one FeatureCollection"
        return None, [Finding("newline-delimited", message)]
    try:
        tree = json.loads(decoded)
    except (ValueError, RecursionError):
        return None, [Finding("json", f"is not JSON, or was cut off ({error})")]
    message = "holds NaN or Infinity, which are not JSON; QuPath reads them, others do not"
    return tree, [Finding("not-a-number", message)]


def _is_newline_delimited(text: bytes) -> bool:
    lines = [line for line in text.split(b"\n", 16)[:16] if line.strip()][:2]
    try:
        return len(lines) == 2 and all(isinstance(orjson.loads(line), dict) for line in lines)
    except orjson.JSONDecodeError:
        return False


def flatten_document(tree: Any) -> tuple[list[dict[str, Any]], list[Finding]]:
    """List the features of a collection, a feature, a bare geometry or an array of these.

    File order; objects in ``properties.childObjects`` follow their parent. A bare geometry becomes
    a feature.
    """
    features: list[dict[str, Any]] = []
    findings: list[Finding] = []
    for element in tree if isinstance(tree, list) else [tree]:
        flattened, problem = _flatten_element(element, len(features))
        for feature in flattened:
            features.extend(walk_children(feature))
        findings += problem
    return features, findings


def _flatten_element(element: Any, index: int) -> tuple[list[dict[str, Any]], list[Finding]]:
    if not isinstance(element, dict):
        message = f"holds a {_kind(element)} where a feature, collection or geometry belongs"
        return [], [Finding("top-level", message)]
    kind = element.get("type")
    if kind == "FeatureCollection" or "features" in element:
        return _flatten_collection(element)
    if kind == "Feature":
        return [element], []
    if kind in GEOMETRY_TYPES or kind == "GeometryCollection":
        return [{"type": "Feature", "geometry": element}], []
    message = f"has the type {kind!r}; QuPath takes FeatureCollection, Feature or a geometry"
    return [], [Finding("feature-type", message, index)]


def _flatten_collection(element: dict[str, Any]) -> tuple[list[dict[str, Any]], list[Finding]]:
    findings = []
    if element.get("type") != "FeatureCollection":
        message = 'lacks "type": "FeatureCollection", so QuPath imports nothing and says nothing'
        findings.append(Finding("collection-type", message))
    members = element.get("features")
    if not isinstance(members, list):
        message = f'has a {_kind(members)} for "features"; a list is needed'
        return [], [*findings, Finding("collection-features", message)]
    features = []
    for index, member in enumerate(members):
        if isinstance(member, dict) and member.get("type") == "Feature":
            features.append(member)
        else:
            kind = member.get("type") if isinstance(member, dict) else _kind(member)
            message = f'is a {kind!r} in "features"; each must have "type": "Feature"'
            findings.append(Finding("feature-type", message, index))
    return features, findings


def walk_children(feature: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a feature, then its descendants in ``properties.childObjects``."""
    pending = [feature]
    while pending:
        current = pending.pop(0)
        yield current
        properties = current.get("properties")
        children = properties.get("childObjects") if isinstance(properties, dict) else None
        if isinstance(children, list):
            pending += [child for child in children if isinstance(child, dict)]


def _kind(value: Any) -> str:
    names = {dict: "object", list: "list", str: "text", type(None): "null", bool: "boolean"}
    return names.get(type(value), "number")
