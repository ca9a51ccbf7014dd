"""The regions of one slide, with look-up by position, id and rank.

Outlines are stored as *runs*: polylines of about a hundred points with a box each, in a spatial
index. A view returns the runs that it touches, so that a region that spans the slide only costs its
visible part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import shapely
from numpy.typing import NDArray

from wsiseg.annotations import Annotations
from wsiseg.errors import GeoJsonError
from wsiseg.qupath import Origin, identify_regions, read_geojson, read_origin
from wsiseg.qupath.form.document import parse_document, read_documents
from wsiseg.qupath.form.stamp import STAMPED_END
from wsiseg.view.scan import scan_coordinates

__all__ = ["Region", "Regions", "outlined_regions", "read_regions"]

_HUNDRED = 100  # coordinates have at most two decimals
_RUN = 128  # points of a run
_RING = 4  # points of a ring, at least: the first is the last
_SPECK_MM2 = 0.001  # when sorted by confidence, smaller regions come last

_Facts = list[tuple[str, str, float, float]]
"""Id, class, mm² and confidence of each feature."""
_FEATURES = b'"features":['
_COORDINATES = b'"coordinates":'
_PROPERTIES = b'},"properties":'


@dataclass(frozen=True)
class Region:
    """The properties of one region."""

    index: int
    """Its position in the file."""
    id: str
    class_name: str
    area_mm2: float
    confidence: float | None
    box: tuple[float, float, float, float]
    """Left, top, right, bottom in the file's pixels."""


class Outlines(NamedTuple):
    """Concatenated lines."""

    owners: NDArray[np.int32]
    """``(n,)``, the region of each line."""
    points: NDArray[np.float64]
    """``(N, 2)`` in the file's pixels."""
    lengths: NDArray[np.intp]
    """``(n,)``, the points of each line."""


class Regions:
    """All regions of a slide, in the pixels of their file.

    `points` ``(N, 2)`` int32 are hundredths of a pixel, `rings` ``(M + 1,)`` where each ring
    starts, `owners` ``(M,)`` the region of each ring; the rings of a region follow each other.
    `origin` is the level-0 position of the file's (0, 0), if that says it.
    """

    def __init__(
        self, ids: Sequence[str], names: Sequence[str], areas: Sequence[float],
        confidence: Sequence[float], points: NDArray[np.int32], rings: NDArray[np.intp],
        owners: NDArray[np.intp], facts: dict[str, Any], origin: Origin | None = None,
    ) -> None:  # fmt: skip
        self.ids, self.facts, self.origin = list(ids), facts, origin
        self.class_names = sorted(set(names))
        codes = {name: code for code, name in enumerate(self.class_names)}
        self._codes = np.array([codes[name] for name in names], np.uint16)
        self._areas = np.array(areas, np.float64)
        self._confidence = np.array(confidence, np.float64)
        self._points, self._rings, self._owners = points, rings, owners
        self._by_id = {identity: index for index, identity in enumerate(self.ids)}
        edges = np.arange(len(self.ids) + 1)
        self._first_ring = np.searchsorted(owners, edges)
        self._boxes = _boxes(points, rings[self._first_ring])
        self._tree = shapely.STRtree(shapely.box(*(self._boxes.T / _HUNDRED)))
        self._starts, self._stops = _cut_runs(rings)
        ring = np.searchsorted(rings, self._starts, side="right") - 1
        self._run_owner = owners[ring].astype(np.int32)
        self._run_tree = shapely.STRtree(
            shapely.box(*(_boxes_of(points, self._starts, self._stops).T / _HUNDRED))
        )
        small = self._areas < _SPECK_MM2
        trust = np.nan_to_num(self._confidence, nan=1.0)
        self._orders = {
            "size": np.argsort(-self._areas, kind="stable"),
            "confidence": np.lexsort((-self._areas, trust, small)),
        }

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def vertices(self) -> int:
        """Points of all outlines."""
        return len(self._points)

    def __getitem__(self, index: int) -> Region:
        confidence = float(self._confidence[index])
        left, top, right, bottom = (self._boxes[index] / _HUNDRED).tolist()
        return Region(
            index, self.ids[index], self.class_names[self._codes[index]],
            float(self._areas[index]), None if np.isnan(confidence) else confidence,
            (left, top, right, bottom),
        )  # fmt: skip

    def find(self, identity: str) -> Region | None:
        """Return the region with that id."""
        index = self._by_id.get(identity)
        return None if index is None else self[index]

    def ranked(self, order: str, names: Iterable[str]) -> NDArray[np.intp]:
        """Return indices of regions of these classes by `size` (largest first) or `confidence`."""
        wanted = [code for code, name in enumerate(self.class_names) if name in set(names)]
        indices = self._orders[order]
        return indices[np.isin(self._codes[indices], wanted)]

    def at(self, x: float, y: float, name: str | None = None) -> Region | None:
        """Return the region that contains a point, of class `name` if given."""
        near = self._tree.query(shapely.Point(x, y))
        for index in sorted(near.tolist(), key=self._areas.__getitem__):
            if name is not None and self.class_names[self._codes[index]] != name:
                continue
            if self._holds(index, x * _HUNDRED, y * _HUNDRED):
                return self[index]
        return None

    def _holds(self, index: int, x: float, y: float) -> bool:
        """Whether a ray from the point crosses the region's rings an odd number of times."""
        crossings = 0
        for ring in self._ring_points(index):
            x0, y0 = ring[:-1].T.astype(np.float64)
            x1, y1 = ring[1:].T.astype(np.float64)
            spans = (y0 > y) != (y1 > y)
            x0, y0, x1, y1 = x0[spans], y0[spans], x1[spans], y1[spans]
            crossings += int((x < x0 + (y - y0) * (x1 - x0) / (y1 - y0)).sum())
        return crossings % 2 == 1

    def _ring_points(self, index: int) -> Iterator[NDArray[np.int32]]:
        for ring in range(self._first_ring[index], self._first_ring[index + 1]):
            yield self._points[self._rings[ring] : self._rings[ring + 1]]

    def geometry(self, index: int) -> shapely.Polygon | shapely.MultiPolygon:
        """Return a region's polygon, with its holes, as in the file."""
        rings = [ring / _HUNDRED for ring in self._ring_points(index)]
        whole = shapely.Polygon(rings[0], rings[1:])
        if whole.is_valid:
            return whole
        # Several parts, or repaired by the writer: combine rings by the even-odd rule.
        shape = shapely.Polygon(rings[0])
        for ring in rings[1:]:
            shape = shape.symmetric_difference(shapely.Polygon(ring))
        return shape

    def outlines(
        self, box: tuple[float, float, float, float], tolerance: float, budget: int
    ) -> Outlines | None:
        """Return the visible outlines in a box as lines.

        Lines are simplified to `tolerance` pixels, and none are left out; returns None if there
        would be more than `budget` points.
        """
        hits = np.sort(self._run_tree.query(shapely.box(*box)))
        starts, stops = self._starts[hits], self._stops[hits]
        if int((stops - starts).sum()) > budget * 8:
            return None
        line = np.repeat(np.arange(len(hits)), stops - starts)
        points = self._points[_ranges(starts, stops)] / _HUNDRED
        if tolerance > 0 and len(hits):
            lines = shapely.linestrings(points, indices=line)
            # Lines have no topology to preserve; checking it takes twice as long.
            lines = shapely.simplify(lines, tolerance, preserve_topology=False)
            points, line = shapely.get_coordinates(lines, return_index=True)
        if len(points) > budget:
            return None
        return Outlines(self._run_owner[hits], points, np.bincount(line, minlength=len(hits)))

    def class_of(self, index: int) -> str:
        """Return a region's class."""
        name: str = self.class_names[self._codes[index]]
        return name


def read_regions(paths: Sequence[Path]) -> Regions:
    """Read the regions of one slide from its files.

    Raises
    ------
    GeoJsonError
        If a file cannot be read, is not GeoJSON with polygons, or says an origin that is none.
    """
    builder = _Builder()
    for path in paths:
        documents, _ = read_documents(path)
        for text in documents:
            builder.take_facts(text, path)
            try:
                builder.scan(text)
            except (ValueError, KeyError, TypeError, AttributeError):  # another form
                builder.add(_plain_features(path), path)
                break
    return builder.build()


def _plain_features(path: Path) -> list[dict[str, Any]]:
    """Read the features of a file that is not in our form."""
    return [
        {
            "id": f"{path.stem}-{number}",
            "geometry": shapely.geometry.mapping(one.geometry),
            "properties": one.properties,
        }
        for number, one in enumerate(read_geojson(path))
    ]


class _Builder:
    """Collects regions from several files."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.origin: Origin | None = None
        self._features: _Facts = []
        self._points: list[NDArray[np.int32]] = []
        self._lengths: list[NDArray[np.int32]] = []
        self._rings: list[NDArray[np.int32]] = []

    def take_facts(self, text: bytes, path: Path) -> None:
        """Read the facts in the head of a file, without parsing the rest."""
        head = text[: text.find(_FEATURES) + len(_FEATURES)] + b"]}"
        tree, _ = parse_document(head)
        facts = tree.get("wsiseg") if isinstance(tree, dict) else None
        self.facts |= facts if isinstance(facts, dict) else {}
        self.origin = read_origin(self.facts, path)

    def scan(self, text: bytes) -> None:
        """Add the features of a file with one feature per line, the form of our files.

        Raises
        ------
        ValueError, KeyError, TypeError, AttributeError
            If the file has another form; nothing is added then.
        """
        at, end = text.find(b"\n") + 1, text.rfind(b"\n]")
        whole = end >= at - 1 and STAMPED_END.fullmatch(text, max(end, 0))
        if not text[:at].endswith(_FEATURES + b"\n") or not whole:
            raise ValueError("not one feature a line")
        features: _Facts = []
        starts, stops = [], []
        while at < end:
            stop = text.find(b"\n", at, end)
            stop = end if stop < 0 else stop
            first = text.index(_COORDINATES, at, stop) + len(_COORDINATES)
            last = text.index(_PROPERTIES, first, stop)
            line = text[at:first] + b"[]" + text[last:stop].rstrip(b",")
            member = orjson.loads(line)
            if member["type"] != "Feature" or "childObjects" in member["properties"]:
                raise ValueError("not plain features")
            if member["geometry"]["type"] not in ("Polygon", "MultiPolygon"):
                raise ValueError("not all are polygons")
            features.append(_read_facts(str(member["id"]), member["properties"]))
            starts.append(first)
            stops.append(last)
            at = stop + 1
        points, lengths, rings = scan_coordinates(
            text, np.array(starts, np.int64), np.array(stops, np.int64)
        )
        if len(rings) and (rings.min() < 1 or lengths.min() < _RING):
            raise ValueError("a region has no outline")
        self._features += features
        self._points.append(points)
        self._lengths.append(lengths)
        self._rings.append(rings)

    def add(self, batch: list[dict[str, Any]], path: Path) -> None:
        """Add features as plain objects, except those that are not polygons."""
        for number, member in enumerate(batch):
            try:
                shape = member["geometry"]
                parts = shape["coordinates"]
                parts = [parts] if shape["type"] == "Polygon" else parts
                if shape["type"] not in ("Polygon", "MultiPolygon"):
                    continue
                rings = [
                    np.rint(np.array(ring, np.float64)[:, :2] * _HUNDRED).astype(np.int32)
                    for part in parts
                    for ring in part
                ]
                self.put(_read_facts(str(member["id"]), member["properties"]), rings)
            except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
                raise GeoJsonError(
                    f"{path}: feature {number} is not a region that the viewer can show "
                    f"({error!r}); see `wsiseg lint`"
                ) from error

    def put(self, facts: tuple[str, str, float, float], rings: list[NDArray[np.int32]]) -> None:
        """Add one region with its rings in hundredths of a pixel."""
        self._features.append(facts)
        self._points += rings
        self._lengths.append(np.array([len(ring) for ring in rings], np.int32))
        self._rings.append(np.array([len(rings)], np.int32))

    def build(self) -> Regions:
        """Build the collected regions."""
        points = np.concatenate(self._points) if self._points else np.zeros((0, 2), np.int32)
        self._points.clear()
        lengths = np.concatenate([*self._lengths, np.zeros(0, np.int32)])
        rings = np.concatenate([*self._rings, np.zeros(0, np.int32)])
        starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.intp)]).astype(np.intp)
        owners = np.repeat(np.arange(len(rings)), rings).astype(np.intp)
        columns = zip(*self._features, strict=True) if self._features else ((), (), (), ())
        ids, names, areas, trust = columns
        return Regions(ids, names, areas, trust, points, starts, owners, self.facts, self.origin)


def _read_facts(identity: str, properties: dict[str, Any]) -> tuple[str, str, float, float]:
    """Return id, class, mm² and mean confidence; NaN for what is missing."""
    measured = properties.get("measurements") or {}
    name = (properties.get("classification") or {}).get("name", "Unclassified")
    area, trust = (measured.get(key) for key in ("Area mm^2", "Mean confidence"))
    return identity, str(name), _number(area), _number(trust)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _boxes(points: NDArray[np.int32], starts: NDArray[np.intp]) -> NDArray[np.float64]:
    return _boxes_of(points, starts[:-1], starts[1:])


def _boxes_of(
    points: NDArray[np.int32], starts: NDArray[np.intp], stops: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return ``(n, 4)`` left, top, right, bottom of ranges of points; ends may be shared."""
    if not len(starts):
        return np.zeros((0, 4))
    # reduceat extends the last range to the end of all points, so interleave starts and stops.
    pairs = np.minimum(np.stack([starts, stops], 1).ravel(), len(points) - 1)
    low = np.minimum.reduceat(points, pairs)[::2]
    high = np.maximum.reduceat(points, pairs)[::2]
    last = points[stops - 1]
    return np.concatenate([np.minimum(low, last), np.maximum(high, last)], 1).astype(np.float64)


def _cut_runs(rings: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return start and stop of runs; each begins at the last point of the one before it."""
    lengths = np.diff(rings)
    counts = np.maximum(1, -(-(lengths - 1) // _RUN))
    ring = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(len(ring)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = rings[:-1][ring] + number * _RUN
    return starts, np.minimum(starts + _RUN + 1, rings[1:][ring])


def _ranges(starts: NDArray[np.intp], stops: NDArray[np.intp]) -> NDArray[np.intp]:
    """Concatenate the ranges from each start to before its stop."""
    lengths = stops - starts
    before = np.cumsum(lengths) - lengths
    return np.asarray(np.arange(lengths.sum()) + np.repeat(starts - before, lengths), np.intp)


def outlined_regions(annotations: Annotations) -> Regions:
    """Convert outlined annotations to regions, with the ids of their GeoJSON."""
    scale, origin = np.array(annotations.scale), np.array(annotations.origin)
    builder = _Builder()
    builder.facts = {**annotations.provenance, "slide": annotations.slide}
    builder.origin = annotations.origin
    for region, identity in identify_regions(annotations):
        rings = [
            np.rint((ring * scale - origin) * _HUNDRED).astype(np.int32)
            for ring in (region.exterior, *region.holes)
        ]
        name, area = annotations.palette.names[region.label], annotations.area_um2(region) / 1e6
        builder.put((identity, name, area, region.confidence), rings)
    return builder.build()
