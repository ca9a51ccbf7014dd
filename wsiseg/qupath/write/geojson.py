"""Annotations to a GeoJSON file that QuPath opens, streamed, checked, and put in place at once."""

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
"""What QuPath makes of a region: annotations can be edited, detections are cheap."""

_HEAD = b'{"type":"Feature","id":"%b","geometry":{"type":"%b","coordinates":%b},"properties":'
_SUFFIXES = (".geojson", ".json", ".geojson.gz", ".json.gz")
_TRIANGLE = b"[[[0,0],[1,0],[1,1],[0,0]]]"
_CHUNK_POINTS = 200_000  # bounds the memory of a chunk to some 20 MB
# Any constant: ids hang on it.
_NAMESPACE = uuid.UUID("5bd5a1a1-9d2c-5b0e-8f0c-3f1f4c0d7a52").bytes


def write_geojson(
    annotations: Annotations,
    path: str | Path,
    object_type: ObjectType = "annotation",
    numbers: NDArray[np.intp] | None = None,
) -> Path:
    """Write one object a region, in level-0 pixels from the annotations' origin.

    One feature is one line. Coordinates are integers where they are whole, else they have at most
    2 decimals. Ids depend on slide, class and outline only. ``.gz`` compresses. The file is written
    beside `path` and takes its place when it is whole and every feature has passed QuPath's rules.
    It ends with a hash of its features, by which `read_stamp` sees whether somebody changed them.

    Parameters
    ----------
    annotations : what to write.
    path : ends in ``.geojson`` or ``.json``, either with ``.gz`` or without.
    object_type : what QuPath makes of each region.
    numbers : ``(R,)`` each region's number in its name; if not given, counted within its class.

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
    """How many bytes `write_geojson` would write at `path`."""
    counter = _Counter()
    _stream(annotations, path, object_type, None, cast(BinaryIO, counter))
    return counter.count


class _Counter(io.RawIOBase):
    """A file that keeps nothing but its size."""

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
    """``(R,)`` the number of each region within its class, from 1."""
    labels = np.array([region.label for region in annotations.regions], np.intp)
    numbers = np.empty(len(labels), np.intp)
    for label in np.unique(labels):
        own = labels == label
        numbers[own] = np.arange(1, own.sum() + 1)
    return numbers


def identify_regions(annotations: Annotations) -> Iterator[tuple[Region, str]]:
    """Each region that has an outline, with the id that it has in the annotations' GeoJSON."""
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


def _serialize(
    annotations: Annotations, path: Path, object_type: ObjectType, numbers: NDArray[np.intp]
) -> Iterator[bytes]:
    """Features as JSON, one a line, in region order, in pieces of bounded size."""
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
        for region, filling in zip(regions, values, strict=True):
            if not filling[1]:
                continue  # it rounds to nothing
            lines.append(styles[region.label].template % filling)
            if region.label not in checked:
                # What differs within a class is made here: id, number, outline, finite numbers.
                _check(lines[-1], path)
                checked.add(region.label)
        if lines:
            yield separator
            yield b",\n".join(lines)
            separator = b",\n"


def _chunks(regions: tuple[Region, ...]) -> Iterator[tuple[int, Sequence[Region]]]:
    """Runs of regions, each with the index of its first."""
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
    """Whether a chunk is one region whose text is better made in pieces, and may be."""
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
    # A triangle stands in for the outline: it is that which is too large to be read back.
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
    """What all features of a class share."""

    def __init__(self, annotations: Annotations, label: int, object_type: ObjectType) -> None:
        name = annotations.palette.names[label]
        color = list(annotations.palette.colors[label])
        # %d and %b come apart from the names, which may hold a % of their own.
        shared = [
            part.replace(b"%", b"%%")
            for part in (orjson.dumps(name)[1:-1], orjson.dumps({"name": name, "color": color}))
        ]
        self.template = _HEAD + (
            b'{"objectType":"%b","name":"%b %%d","classification":%b,"isLocked":%b,'
            b'"measurements":%%b}}'
            % (object_type.encode(), *shared, orjson.dumps(annotations.locked))
        )
        """Takes id, geometry type, coordinates, number and measurements."""
        self.owner = _as_text(f"{annotations.slide}|{name}").encode()
        """What ids hang on, beside the outline."""


def _styles(annotations: Annotations, object_type: ObjectType) -> list[_Style]:
    return [_Style(annotations, label, object_type) for label in range(len(annotations.palette))]


def _identify(
    styles: Sequence[_Style], regions: Sequence[Region], outlines: Outlines, seen: dict[bytes, int]
) -> list[bytes]:
    """The id of each region: slide, class and outline, and how often these were `seen` before."""
    owners = (styles[region.label].owner for region in regions)
    return _stable_ids(map(bytes.__add__, owners, outlines.marks), seen)


def _stable_ids(keys: Iterator[bytes], seen: dict[bytes, int]) -> list[bytes]:
    """The uuid5 of each key, and of ``key|2`` where it was `seen` before."""
    digests = []
    for key in keys:
        count = seen.get(key, 0) + 1
        seen[key] = count
        name = key if count == 1 else key + b"|%d" % count
        digests.append(hashlib.sha1(_NAMESPACE + name, usedforsecurity=False).digest())
    return format_ids(b"".join(digests))


def _measure(regions: Sequence[Region], mpp: float) -> list[bytes]:
    """Each region's measurements as JSON; a confidence that is no number is left out."""
    area = np.array([region.area_px for region in regions]) * (mpp * mpp) / 1e6
    confidence = np.round([float(region.confidence) for region in regions], 4)
    return [
        b'{"Area mm^2":%b,"Mean confidence":%b}' % pair
        if pair[1] != b"null"
        else b'{"Area mm^2":%b}' % pair[0]
        for pair in zip(_dump_floats(area), _dump_floats(confidence), strict=True)
    ]


def _dump_floats(values: NDArray[np.float64]) -> list[bytes]:
    """Each as JSON, ``null`` for what is no number."""
    return orjson.dumps(values.tolist())[1:-1].split(b",")


def _check(line: bytes, path: Path) -> None:
    for finding in lint_features([orjson.loads(line)]):
        if finding.severity == "error":
            raise GeoJsonError(f"{path}: {finding}")
