"""Annotations to a GeoJSON file that QuPath opens, streamed, checked, and put in place at once."""

from __future__ import annotations

import gzip
import hashlib
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from math import isfinite
from pathlib import Path
from typing import BinaryIO, cast

import orjson

from wsiseg.annotations import Annotations, Region
from wsiseg.atomic import open_atomic
from wsiseg.errors import GeoJsonError
from wsiseg.qupath.lint import lint_features
from wsiseg.qupath.outlines import Outline, place_outlines

__all__ = ["identify_regions", "write_geojson"]

_FEATURE = (
    b'{"type":"Feature","id":"%b","geometry":{"type":"%b","coordinates":%b},'
    b'"properties":{"objectType":"annotation","name":"%b %d","classification":%b,'
    b'"isLocked":%b,"measurements":%b}}'
)
_SUFFIXES = (".geojson", ".json", ".geojson.gz", ".json.gz")
_CHUNK_POINTS = 200_000  # bounds the memory of a chunk to some 20 MB
# Any constant: ids hang on it.
_NAMESPACE = uuid.UUID("5bd5a1a1-9d2c-5b0e-8f0c-3f1f4c0d7a52").bytes


def write_geojson(annotations: Annotations, path: str | Path) -> Path:
    """Write one annotation a region, in level-0 pixels from the annotations' origin.

    One feature is one line. Coordinates are integers where they are whole, else they have at most
    2 decimals. Ids depend on slide, class and region only. ``.gz`` compresses. The file is written
    beside `path` and takes its place when it is whole and every feature has passed QuPath's rules.

    Returns
    -------
    `path`.

    Raises
    ------
    GeoJsonError
        If the name does not end as QuPath needs, or a region breaks one of its rules.
    """
    path = Path(path)
    if not path.name.lower().endswith(_SUFFIXES):
        raise GeoJsonError(
            f"{path}: QuPath imports nothing from this name; end it in {', '.join(_SUFFIXES)}"
        )
    with open_atomic(path) as raw, _compress(raw, path) as file:
        file.write(_head(annotations))
        separator = b""
        for chunk in _serialize(annotations, path):
            file.write(separator)
            file.write(chunk)
            separator = b",\n"
        file.write(b"\n]}\n")
    return path


def identify_regions(annotations: Annotations) -> Iterator[tuple[Region, str]]:
    """Each region that has an outline, with the id that it has in the annotations' GeoJSON."""
    owners = [_style(annotations, label)[2] for label in range(len(annotations.palette))]
    ids: Counter[bytes] = Counter()
    for regions in _chunks(annotations.regions):
        for outline in _place(annotations, regions, Path(annotations.slide)):
            region = outline.region
            yield region, _stable_id(owners[region.label], outline, ids).decode()


def _compress(raw: BinaryIO, path: Path) -> AbstractContextManager[BinaryIO]:
    if path.suffix.lower() != ".gz":
        return nullcontext(raw)
    # No name and no time in the header: the same annotations give the same bytes.
    packed = gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6)
    return cast("AbstractContextManager[BinaryIO]", packed)


def _head(annotations: Annotations) -> bytes:
    """Everything before the features; QuPath ignores the member ``wsiseg``."""
    facts = {
        **{name: _as_text(value) for name, value in annotations.provenance.items()},
        "slide": _as_text(annotations.slide),
        "mpp": annotations.mpp,
        "scale": list(annotations.scale),
        "origin": list(annotations.origin),
        "regions": len(annotations.regions),
    }
    text = orjson.dumps(facts, option=orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY)
    return b'{"type":"FeatureCollection","wsiseg":' + text + b',"features":[\n'


def _as_text(value: str) -> str:
    """A file name that is not UTF-8 comes as lone surrogates, which JSON cannot hold."""
    return str(value).encode("utf-8", "backslashreplace").decode()


def _serialize(annotations: Annotations, path: Path) -> Iterator[bytes]:
    """Chunks of features as JSON, one a line, in region order."""
    styles = [_style(annotations, label) for label in range(len(annotations.palette))]
    numbers: Counter[int] = Counter()
    ids: Counter[bytes] = Counter()
    for regions in _chunks(annotations.regions):
        lines = []
        for outline in _place(annotations, regions, path):
            label = outline.region.label
            numbers[label] += 1
            line = _feature(annotations, outline, styles[label], numbers[label], ids)
            if numbers[label] == 1:
                # What differs within a class is made here: id, number, outline, finite numbers.
                _check(line, path)
            lines.append(line)
        if lines:
            yield b",\n".join(lines)


def _chunks(regions: tuple[Region, ...]) -> Iterator[list[Region]]:
    chunk: list[Region] = []
    points = 0
    for region in regions:
        chunk.append(region)
        points += len(region.exterior) + sum(len(hole) for hole in region.holes)
        if points >= _CHUNK_POINTS:
            yield chunk
            chunk, points = [], 0
    if chunk:
        yield chunk


def _place(annotations: Annotations, regions: list[Region], path: Path) -> Iterator[Outline]:
    try:
        yield from place_outlines(regions, annotations.scale, annotations.origin)
    except GeoJsonError as error:
        raise GeoJsonError(f"{path}: {error}") from error


def _style(annotations: Annotations, label: int) -> tuple[bytes, bytes, str]:
    """What all features of a class share: name and classification as JSON, and the ids' owner."""
    name = annotations.palette.names[label]
    classification = {"name": name, "color": list(annotations.palette.colors[label])}
    owner = _as_text(f"{annotations.slide}|{name}")
    return orjson.dumps(name)[1:-1], orjson.dumps(classification), owner


def _feature(
    annotations: Annotations,
    outline: Outline,
    style: tuple[bytes, bytes, str],
    number: int,
    ids: Counter[bytes],
) -> bytes:
    region = outline.region
    name, classification, owner = style
    measurements = {"Area mm^2": float(annotations.area_um2(region)) / 1e6}
    if isfinite(region.confidence):
        measurements["Mean confidence"] = round(float(region.confidence), 4)
    return _FEATURE % (
        _stable_id(owner, outline, ids),
        outline.kind,
        outline.coordinates,
        name,
        number,
        classification,
        orjson.dumps(annotations.locked),
        orjson.dumps(measurements),
    )


def _stable_id(owner: str, outline: Outline, ids: Counter[bytes]) -> bytes:
    """The uuid5 of a region: the same whatever else is in the file."""
    x, y = outline.corner
    key = f"{owner}|{x},{y}|{outline.region.area_px}".encode()
    ids[key] += 1
    if ids[key] > 1:
        key += b"|%d" % ids[key]
    # uuid.uuid5 by hand, which costs a third: this runs for every region.
    digest = hashlib.sha1(_NAMESPACE + key, usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    text = f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"
    return text.encode()


def _check(line: bytes, path: Path) -> None:
    for finding in lint_features([orjson.loads(line)]):
        if finding.severity == "error":
            raise GeoJsonError(f"{path}: {finding}")
