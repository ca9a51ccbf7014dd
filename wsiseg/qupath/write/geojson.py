"""Write annotations to a GeoJSON file for QuPath: streamed, checked, and atomic."""

from __future__ import annotations

import gzip
import hashlib
import io
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

import numpy as np
import orjson
from numpy.typing import NDArray

from wsiseg.annotations import Annotations, Region
from wsiseg.atomic import open_atomic
from wsiseg.errors import GeoJsonError
from wsiseg.qupath.form.stamp import end_of
from wsiseg.qupath.lint import lint_features
from wsiseg.qupath.write.outlines import (
    Outlines,
    are_valid,
    mark_region,
    place_outlines,
    stream_outline,
)
from wsiseg.qupath.write.text import format_ids
from wsiseg.text import dump_json, escape

if TYPE_CHECKING:
    import geojson

__all__ = [
    "ObjectType",
    "identify_regions",
    "measure_geojson",
    "number_regions",
    "to_feature_collection",
    "write_geojson",
]

ObjectType = Literal["annotation", "detection"]
"""QuPath's type for regions: annotations can be edited, detections are cheap."""

_HEAD = b'{"type":"Feature","id":"%b","geometry":{"type":"%b","coordinates":%b},"properties":'
_SUFFIXES = (".geojson", ".json", ".geojson.gz", ".json.gz")
_TRIANGLE = b"[[[0,0],[1,0],[1,1],[0,0]]]"
_CHUNK_POINTS = 200_000  # bounds the memory of a chunk to about 20 MB
# Arbitrary, but ids depend on it.
_NAMESPACE = uuid.UUID("5bd5a1a1-9d2c-5b0e-8f0c-3f1f4c0d7a52").bytes


def write_geojson(
    annotations: Annotations,
    path: str | Path,
    object_type: ObjectType = "annotation",
    numbers: NDArray[np.intp] | None = None,
) -> Path:
    """Write one object per region, in level-0 pixels relative to the annotations' origin.

    Each feature is one line. Whole coordinates are integers, others have at most 2 decimals. Ids
    depend only on slide, class and outline. ``.gz`` compresses. The file is written beside `path`
    and replaces it when it is complete and every feature has passed QuPath's rules. It ends with a
    hash of its features, by which `read_stamp` detects edits.

    Parameters
    ----------
    annotations : the regions to write.
    path : ends in ``.geojson`` or ``.json``, optionally followed by ``.gz``.
    object_type : QuPath's type for the regions.
    numbers : ``(R,)`` number in each region's name; if not given, counted within its class.

    Returns
    -------
    `path`.

    Raises
    ------
    GeoJsonError
        If QuPath does not import such file names, or a region breaks one of its rules.
    """
    path = Path(path)
    if not path.name.lower().endswith(_SUFFIXES):
        raise GeoJsonError(
            f"{path}: QuPath does not import this file name; end it in {', '.join(_SUFFIXES)}"
        )
    with open_atomic(path) as file:
        _stream(annotations, path, object_type, numbers, file)
    return path


def to_feature_collection(
    annotations: Annotations, object_type: ObjectType = "annotation"
) -> geojson.FeatureCollection:
    """Make a ``geojson.FeatureCollection`` with what `write_geojson` would write.

    Its member ``wsiseg`` holds what `from_feature_collection` needs to give the annotations back.

    Raises
    ------
    GeoJsonError
        If a region breaks one of QuPath's rules.
    """
    import geojson

    buffer = io.BytesIO()
    path = Path(f"{annotations.slide}.geojson")  # for errors
    _stream(annotations, path, object_type, None, cast(BinaryIO, buffer))
    collection = geojson.loads(buffer.getvalue())
    del collection["wsiseg_sha256"]  # of the bytes of a file
    return collection


def measure_geojson(annotations: Annotations, path: Path, object_type: ObjectType) -> int:
    """Count the bytes that `write_geojson` would write to `path`."""
    counter = _Counter()
    _stream(annotations, path, object_type, None, cast(BinaryIO, counter))
    return counter.count


class _Counter(io.RawIOBase):
    """A file that discards its data and counts the bytes."""

    count = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.count += len(data)
        return len(data)


def _stream(
    annotations: Annotations,
    path: Path,
    object_type: ObjectType,
    numbers: NDArray[np.intp] | None,
    raw: BinaryIO,
) -> None:
    numbers = number_regions(annotations) if numbers is None else numbers
    with _compress(raw, path) as file:
        file.write(_head(annotations))
        features = hashlib.sha256()
        for piece in _serialize(annotations, path, object_type, numbers):
            features.update(piece)
            file.write(piece)
        file.write(end_of(features.digest()))


def number_regions(annotations: Annotations) -> NDArray[np.intp]:
    """Return ``(R,)`` the number of each region within its class, from 1."""
    labels = np.array([region.label for region in annotations.regions], np.intp)
    numbers = np.empty(len(labels), np.intp)
    for label in np.unique(labels):
        own = labels == label
        numbers[own] = np.arange(1, own.sum() + 1)
    return numbers


def identify_regions(annotations: Annotations) -> Iterator[tuple[Region, str]]:
    """Yield each region that has an outline with its id in the annotations' GeoJSON."""
    styles = _styles(annotations, "annotation")
    seen: dict[bytes, int] = {}
    for _, regions in _chunks(annotations.regions):
        if _is_large(annotations, regions):
            yield regions[0], _identify_large(styles, regions[0], seen).decode()
            continue
        outlines = _place(annotations, regions, Path(annotations.slide))
        ids = _identify(styles, regions, outlines, seen)
        for region, coordinates, identity in zip(regions, outlines.coordinates, ids, strict=True):
            if coordinates:
                yield region, identity.decode()


def _compress(raw: BinaryIO, path: Path) -> AbstractContextManager[BinaryIO]:
    if path.suffix.lower() != ".gz":
        return nullcontext(raw)
    # No name or time in the header, so that the same annotations give the same bytes.
    packed = gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6)
    return cast("AbstractContextManager[BinaryIO]", packed)


def _head(annotations: Annotations) -> bytes:
    """Format everything before the features; QuPath ignores the member ``wsiseg``."""
    facts = {
        **{name: str(value) for name, value in annotations.provenance.items()},
        "slide": annotations.slide,
        "mpp": annotations.mpp,
        "scale": list(annotations.scale),
        "origin": list(annotations.origin),
        "regions": len(annotations.regions),
    }
    text = dump_json(facts, option=orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY)
    return b'{"type":"FeatureCollection","wsiseg":' + text + b',"features":[\n'


def _serialize(
    annotations: Annotations, path: Path, object_type: ObjectType, numbers: NDArray[np.intp]
) -> Iterator[bytes]:
    """Yield features as JSON, one per line, in region order, in pieces of bounded size."""
    styles = _styles(annotations, object_type)
    seen: dict[bytes, int] = {}
    checked: set[int] = set()
    separator = b""
    for first, regions in _chunks(annotations.regions):
        if _is_large(annotations, regions):
            yield separator
            yield from _serialize_large(annotations, path, styles, regions[0], numbers[first], seen)
            separator = b",\n"
            continue
        outlines = _place(annotations, regions, path)
        values = zip(
            _identify(styles, regions, outlines, seen),
            outlines.kinds,
            outlines.coordinates,
            numbers[first : first + len(regions)].tolist(),
            _measure(regions, annotations.mpp),
            strict=True,
        )
        lines = []
        for region, fields in zip(regions, values, strict=True):
            if not fields[1]:
                continue  # vanished by rounding
            lines.append(styles[region.label].template % fields)
            if region.label not in checked:
                # One check per class suffices: the rest (id, number, outline) is valid by design.
                _check(lines[-1], path)
                checked.add(region.label)
        if lines:
            yield separator
            yield b",\n".join(lines)
            separator = b",\n"


def _chunks(regions: tuple[Region, ...]) -> Iterator[tuple[int, Sequence[Region]]]:
    """Yield runs of regions, each with the index of its first."""
    first = points = 0
    for index, region in enumerate(regions):
        own = _count_points(region)
        if points and points + own > _CHUNK_POINTS:
            yield first, regions[first:index]
            first, points = index, 0
        points += own
    if regions:
        yield first, regions[first:]


def _count_points(region: Region) -> int:
    return len(region.exterior) + sum(map(len, region.holes))


def _is_large(annotations: Annotations, regions: Sequence[Region]) -> bool:
    """Whether a chunk is one exact region that is large enough to be written in pieces."""
    alone = len(regions) == 1 and _count_points(regions[0]) > _CHUNK_POINTS
    return alone and are_valid(annotations)


def _serialize_large(
    annotations: Annotations, path: Path, styles: Sequence[_Style], region: Region, number: int,
    seen: dict[bytes, int],
) -> Iterator[bytes]:  # fmt: skip
    try:
        identity = _identify_large(styles, region, seen)
    except GeoJsonError as error:
        raise GeoJsonError(f"{path}: {error}") from error
    (measured,) = _measure([region], annotations.mpp)
    # Checked with a triangle in place of the outline, which is too large to be parsed again.
    values = (identity, b"Polygon", _TRIANGLE, number, measured)
    line = styles[region.label].template % values
    _check(line, path)
    before, after = line.split(_TRIANGLE, 1)
    yield before
    yield from stream_outline(region, annotations.scale, annotations.origin)
    yield after


def _identify_large(styles: Sequence[_Style], region: Region, seen: dict[bytes, int]) -> bytes:
    (identity,) = _stable_ids(iter([styles[region.label].owner + mark_region(region)]), seen)
    return identity


def _place(annotations: Annotations, regions: Sequence[Region], path: Path) -> Outlines:
    try:
        valid = are_valid(annotations)
        return place_outlines(regions, annotations.scale, annotations.origin, valid)
    except GeoJsonError as error:
        raise GeoJsonError(f"{path}: {error}") from error


class _Style:
    """The parts that all features of a class share."""

    def __init__(self, annotations: Annotations, label: int, object_type: ObjectType) -> None:
        name = annotations.palette.names[label]
        color = list(annotations.palette.colors[label])
        # Escape any % in names, as the template is filled with %.
        shared = [
            part.replace(b"%", b"%%")
            for part in (dump_json(name)[1:-1], dump_json({"name": name, "color": color}))
        ]
        self.template = _HEAD + (
            b'{"objectType":"%b","name":"%b %%d","classification":%b,"isLocked":%b,'
            b'"measurements":%%b}}'
            % (object_type.encode(), *shared, orjson.dumps(annotations.locked))
        )
        """Template for id, geometry type, coordinates, number and measurements."""
        self.owner = escape(f"{annotations.slide}|{name}").encode()
        """What ids depend on besides the outline."""


def _styles(annotations: Annotations, object_type: ObjectType) -> list[_Style]:
    return [_Style(annotations, label, object_type) for label in range(len(annotations.palette))]


def _identify(
    styles: Sequence[_Style], regions: Sequence[Region], outlines: Outlines, seen: dict[bytes, int]
) -> list[bytes]:
    """Return the id of each region, from slide, class, outline, and how often `seen` before."""
    owners = (styles[region.label].owner for region in regions)
    return _stable_ids(map(bytes.__add__, owners, outlines.marks), seen)


def _stable_ids(keys: Iterator[bytes], seen: dict[bytes, int]) -> list[bytes]:
    """Return the uuid5 of each key, or of ``key|2`` and so on if it was `seen` before."""
    digests = []
    for key in keys:
        count = seen.get(key, 0) + 1
        seen[key] = count
        name = key if count == 1 else key + b"|%d" % count
        digests.append(hashlib.sha1(_NAMESPACE + name, usedforsecurity=False).digest())
    return format_ids(b"".join(digests))


def _measure(regions: Sequence[Region], mpp: float) -> list[bytes]:
    """Format each region's measurements as JSON; NaN confidence is left out."""
    area = np.array([region.area_px for region in regions]) * (mpp * mpp) / 1e6
    confidence = np.round([float(region.confidence) for region in regions], 4)
    return [
        b'{"Area mm^2":%b,"Mean confidence":%b}' % pair
        if pair[1] != b"null"
        else b'{"Area mm^2":%b}' % pair[0]
        for pair in zip(_dump_floats(area), _dump_floats(confidence), strict=True)
    ]


def _dump_floats(values: NDArray[np.float64]) -> list[bytes]:
    """Format numbers as JSON; NaN becomes ``null``."""
    return orjson.dumps(values.tolist())[1:-1].split(b",")


def _check(line: bytes, path: Path) -> None:
    for finding in lint_features([orjson.loads(line)]):
        if finding.severity == "error":
            raise GeoJsonError(f"{path}: {finding}")
