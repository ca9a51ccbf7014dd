"""Read annotations from GeoJSON: our files exactly, QuPath's and others' to 0.01 px."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import shapely
from numpy.typing import NDArray

from wsiseg.annotations import PALETTES, Annotations, Palette, Region
from wsiseg.errors import GeoJsonError
from wsiseg.qupath.form.finding import Finding
from wsiseg.qupath.form.shapes import DECIMALS
from wsiseg.qupath.read.features import Feature, build_features, describe_left_out, read_facts
from wsiseg.qupath.read.origin import read_origin

__all__ = ["from_feature_collection", "read_annotations"]

_LOG = logging.getLogger(__name__)

_HUNDRED = 10**DECIMALS
_PLAIN = ((64, 64, 64), "Unclassified")  # as QuPath shows objects without a class
_OWN = ("slide", "mpp", "scale", "origin", "regions")


def read_annotations(
    path: str | Path,
    *,
    palette: Palette | None = None,
    mpp: float | None = None,
    slide: str | None = None,
) -> Annotations:
    """Read a GeoJSON file as regions, in every form that QuPath writes or accepts.

    Our own files round-trip: written again, they are identical to the byte. Other files are read to
    0.01 px, and each part of a MultiPolygon becomes a region. Points, lines and broken features are
    left out and recorded in the provenance; broken ones are also logged. Names of objects are not
    kept.

    Parameters
    ----------
    path : any file that `read_geojson` takes.
    palette : the classes, in label order; the file's own, in their order, if not given.
    mpp : level-0 µm/px, for a file that is not ours; our files contain it.
    slide : name of the slide file; if not given, taken from the file, else its name.

    Raises
    ------
    GeoJsonError
        If the file cannot be read, names a class that `palette` lacks, or has no pixel size and
        `mpp` is not given.
    """
    path = Path(path)
    left_out: list[Finding] = []
    features, facts = read_facts(path, left_out)
    slide = slide or facts.get("slide") or re.sub(r"\.(geo)?json.*|\.zip$", "", path.name)
    return _assemble(path, features, facts, left_out, palette, mpp, str(slide))


def from_feature_collection(
    collection: Any,
    *,
    palette: Palette | None = None,
    mpp: float | None = None,
    slide: str | None = None,
) -> Annotations:
    """Make annotations of a ``geojson.FeatureCollection``, as `read_annotations` does of a file.

    Parameters
    ----------
    collection
        A FeatureCollection in level-0 pixels: geojson's, a plain dict, or whatever has a
        ``__geo_interface__``, such as a GeoDataFrame.
    palette, mpp
        As in `read_annotations`.
    slide
        Name of the slide file; what the collection says if not given.

    Raises
    ------
    GeoJsonError
        As `read_annotations`; also if nothing says the slide's name.
    """
    source = Path(slide or "the collection")
    tree = getattr(collection, "__geo_interface__", collection)
    try:
        tree = orjson.loads(orjson.dumps(tree, option=orjson.OPT_SERIALIZE_NUMPY))  # no tuples
    except TypeError as error:
        raise GeoJsonError(f"{source}: is no GeoJSON ({error})") from error
    left_out: list[Finding] = []
    features, facts = build_features(source, [tree], left_out)
    slide = slide or facts.get("slide")
    if not slide:
        raise GeoJsonError(f"{source} names no slide; give slide, the name of the slide file")
    return _assemble(source, features, facts, left_out, palette, mpp, str(slide))


def _assemble(
    path: Path, features: Sequence[Feature], facts: dict[str, Any], left_out: Sequence[Finding],
    palette: Palette | None, mpp: float | None, slide: str,
) -> Annotations:  # fmt: skip
    areas = [one for one in features if one.geometry.geom_type in ("Polygon", "MultiPolygon")]
    frame = _find_frame(path, areas, facts, mpp)
    palette = palette or _find_palette(areas)
    provenance = {key: str(value) for key, value in facts.items() if key not in _OWN}
    if len(areas) < len(features):
        provenance["left_out"] = f"{len(features) - len(areas)} points and lines"
    if broken := describe_left_out(left_out):
        _LOG.warning("%s: %s", path, broken)
        provenance["broken"] = broken
    return Annotations(
        slide=slide,
        palette=palette,
        regions=tuple(_make_regions(path, areas, frame, palette)),
        scale=frame.scale,
        mpp=frame.mpp,
        origin=frame.origin,
        provenance=provenance,
        locked=all(one.properties.get("isLocked") is True for one in areas),
    )


@dataclass(frozen=True)
class _Frame:
    """The raster's position in the file's pixels."""

    scale: tuple[float, float]
    origin: tuple[int, int]
    mpp: float
    known: bool
    """Whether the file states it; its areas are then those of the raster."""

    def to_raster(self, points: NDArray[np.float64]) -> NDArray[np.int32]:
        """Convert points in the file's pixels to ``(N, 2)`` raster corners."""
        return np.rint((points + self.origin) / self.scale).astype(np.int32)

    def fits(self, points: NDArray[np.float64]) -> bool:
        """Whether all points are corners of the raster, to the written precision."""
        placed = self.to_raster(points) * np.array(self.scale) - self.origin
        return np.array_equal(np.rint(placed * _HUNDRED), np.rint(points * _HUNDRED))


def _find_frame(
    path: Path, areas: Sequence[Feature], facts: dict[str, Any], mpp: float | None
) -> _Frame:
    """Return the raster of our own file, else a grid of whole or hundredth pixels."""
    points = shapely.get_coordinates([one.geometry for one in areas])
    left, top = read_origin(facts, path) or (0, 0)
    origin = int(left), int(top)
    try:
        stored = _Frame(
            (float(facts["scale"][0]), float(facts["scale"][1])),
            origin,
            float(facts["mpp"]),
            known=True,
        )
    except (KeyError, IndexError, TypeError, ValueError):
        stored = None
    if stored is not None:
        if stored.fits(points):
            return stored
        mpp = mpp or stored.mpp / stored.scale[0]  # somebody moved a vertex
    if mpp is None:
        raise GeoJsonError(f"{path}: has no pixel size; give mpp, the slide's level-0 µm/px")
    if points.size and np.abs(points + origin).max() * _HUNDRED >= 2**31:
        raise GeoJsonError(f"{path}: holds a coordinate beyond {2**31 // _HUNDRED:,} px")
    step = 1.0 if np.array_equal(points, np.rint(points)) else 1.0 / _HUNDRED
    return _Frame((step, step), origin, mpp * step, known=False)


def _find_palette(areas: Sequence[Feature]) -> Palette:
    """List the classes of the file in order of appearance."""
    colors: dict[str, tuple[int, int, int]] = {}
    for one in areas:
        name = one.class_name or _PLAIN[1]
        if name not in colors:
            colors[name] = _color_of(one) or _default_color(name)
    return Palette(tuple(colors), tuple(colors.values()))


def _color_of(one: Feature) -> tuple[int, int, int] | None:
    value = one.properties.get("classification")
    if not isinstance(value, dict):
        return None
    color = value.get("color", value.get("colorRGB"))
    if isinstance(color, int):
        return (color >> 16 & 255, color >> 8 & 255, color & 255)
    if isinstance(color, list) and len(color) >= 3 and all(map(_is_finite, color[:3])):
        red, green, blue = (min(max(int(part), 0), 255) for part in color[:3])
        return red, green, blue
    return None


def _is_finite(part: object) -> bool:
    return isinstance(part, int | float) and math.isfinite(part)


def _default_color(name: str) -> tuple[int, int, int]:
    for palette in PALETTES.values():
        if name in palette.names:
            return palette.colors[palette.names.index(name)]
    return _PLAIN[0]


def _make_regions(
    path: Path, areas: Sequence[Feature], frame: _Frame, palette: Palette
) -> Iterator[Region]:
    labels = {name: label for label, name in enumerate(palette.names)}
    for one in areas:
        name = one.class_name or _PLAIN[1]
        if name not in labels:
            raise GeoJsonError(
                f"{path}: holds the class {name!r}, which is not one of {list(palette.names)}"
            )
        measured = _measurements(one)
        parts = shapely.get_parts(one.geometry)
        for polygon in parts:
            rings = [
                frame.to_raster(shapely.get_coordinates(ring))
                for ring in (polygon.exterior, *polygon.interiors)
            ]
            area = measured.get("Area mm^2") if frame.known and len(parts) == 1 else None
            pixels = area * 1e6 / (frame.mpp * frame.mpp) if area is not None else _area(rings)
            confidence = measured.get("Mean confidence", float("nan"))
            yield Region(labels[name], rings[0], tuple(rings[1:]), round(pixels), confidence)


def _measurements(one: Feature) -> dict[str, float]:
    """Return finite measurements by name, from either form."""
    value = one.properties.get("measurements")
    if isinstance(value, list):
        value = {
            item["name"]: item.get("value")
            for item in value
            if isinstance(item, dict) and isinstance(item.get("name"), str)
        }
    items = value.items() if isinstance(value, dict) else ()
    return {str(name): float(number) for name, number in items if _is_finite(number)}


def _area(rings: Sequence[NDArray[np.int32]]) -> float:
    """Return the area within the first ring and outside the others, in raster pixels."""
    sizes = shapely.area(shapely.polygons([shapely.linearrings(ring) for ring in rings]))
    return float(sizes[0] - sizes[1:].sum())
