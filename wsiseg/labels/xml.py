"""Read labels from the XML of Aperio ImageScope and of ASAP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from wsiseg.errors import DataError
from wsiseg.labels.mark import Drawn, Mark

__all__ = ["read_xml_marks"]

_Points = list[tuple[float, float]]

_POLYGON, _RECTANGLE, _ELLIPSE = "0", "1", "2"  # ImageScope's types of regions; others are lines
_CORNERS = 72  # of an ellipse drawn as a polygon


def read_xml_marks(path: Path) -> Drawn:
    """Read areas and dots of an ImageScope or ASAP file; both use level-0 pixels.

    ImageScope: the layer's name is the class; negative regions are cut out of the others in their
    layer. ASAP: the group is the class.

    Raises
    ------
    DataError
        If the file cannot be read, declares entities, or comes from neither program.
    """
    try:
        data = path.read_bytes()
        # Entities can name other files, or grow without end; no annotation needs them.
        if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
            raise DataError(f"{path}: declares a document type; delete that line")
        root = ElementTree.fromstring(data)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ElementTree.ParseError as error:
        raise DataError(f"{path}: is not XML, or was cut off ({error})") from error
    if root.tag == "Annotations":
        return _read_imagescope(path, root)
    if root.tag == "ASAP_Annotations":
        return _read_asap(path, root)
    raise DataError(
        f"{path}: its outermost element is <{root.tag}>; ImageScope writes <Annotations>, ASAP "
        f"<ASAP_Annotations>"
    )


def _read_imagescope(path: Path, root: Element) -> Drawn:
    drawn, skipped = Drawn(origin=(0, 0)), Counter[str]()
    mpp = root.get("MicronsPerPixel")
    drawn.mpp = _number(f"{path}: MicronsPerPixel", mpp) if mpp else None
    for layer in root.iter("Annotation"):
        name = _layer_name(layer)
        positive: list[tuple[str, str, BaseGeometry]] = []
        negative: list[BaseGeometry] = []
        for region in layer.iter("Region"):
            where = f"{path}: layer {layer.get('Id')}, region {region.get('Id')}"
            points = _points(where, region.iter("Vertex"))
            shape = _imagescope_shape(region.get("Type", _POLYGON), points)
            if shape is None:
                skipped["lines, arrows or rulers skipped: draw an area"] += 1
            elif region.get("NegativeROA") == "1":
                negative.append(shape)
            else:
                positive.append((where, name or (region.get("Text") or "").strip(), shape))
        hole = shapely.union_all(negative)
        for where, own, shape in positive:
            left = shapely.difference(shape, hole)
            if not own:
                skipped["without a class (a named layer) skipped"] += 1
            elif left.is_empty:
                skipped["wholly within negative regions skipped"] += 1
            else:
                drawn.marks.append(Mark(own, left, where))
    drawn.notes = _notes(path, skipped)
    return drawn


def _layer_name(layer: Element) -> str:
    """Return the name of a layer, which ImageScope may store as its first attribute."""
    named = layer.get("Name") or ""
    if named.strip():
        return named
    described = [a.get("Value") or "" for a in layer.findall("Attributes/Attribute")]
    return next(filter(str.strip, described), "")


def _imagescope_shape(kind: str, points: _Points) -> BaseGeometry | None:
    if kind == _ELLIPSE and len(points) == 2:
        (left, top), (right, bottom) = points
        angle = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
        x = (left + right + (right - left) * np.cos(angle)) / 2
        y = (top + bottom + (bottom - top) * np.sin(angle)) / 2
        points = list(zip(x.tolist(), y.tolist(), strict=True))
    elif kind == _RECTANGLE and len(points) == 2:
        (left, top), (right, bottom) = points
        points = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return _area(points) if kind in (_POLYGON, _RECTANGLE, _ELLIPSE) else None


def _read_asap(path: Path, root: Element) -> Drawn:
    drawn, skipped = Drawn(origin=(0, 0)), Counter[str]()
    for number, element in enumerate(root.iter("Annotation")):
        where = f"{path}: annotation {number} ({element.get('Name')!r})"
        points, kind = _points(where, _in_order(where, element)), element.get("Type", "Polygon")
        group = element.get("PartOfGroup") or ""
        shape = _asap_shape(kind, points)
        if shape is None:
            skipped[f"of type {kind} skipped: draw an area or a dot"] += 1
        elif group in ("", "None"):
            skipped["without a class (a group) skipped"] += 1
        else:
            drawn.marks.append(Mark(group, shape, where))
            skipped["spline(s) read as straight lines between their points"] += kind == "Spline"
    drawn.notes = _notes(path, +skipped)
    return drawn


def _in_order(where: str, element: Element) -> list[Element]:
    """Return an annotation's coordinates, by their order if they say it."""
    return sorted(
        element.iter("Coordinate"), key=lambda c: _number(f"{where}: Order", c.get("Order") or "0")
    )


def _asap_shape(kind: str, points: _Points) -> BaseGeometry | None:
    if kind in ("Dot", "PointSet") and points:
        return shapely.MultiPoint(points)
    return _area(points) if kind in ("Polygon", "Rectangle", "Spline") else None


def _area(points: _Points) -> BaseGeometry | None:
    """Return the polygon of a ring, closed if open; even-odd where it crosses itself."""
    if len(points) < 3:
        return None
    shape = shapely.make_valid(shapely.Polygon(points))
    parts = [p for p in shapely.get_parts(shape) if p.geom_type in ("Polygon", "MultiPolygon")]
    joined = shapely.union_all(parts)
    return None if joined.is_empty else joined


def _points(where: str, elements: Iterable[Element]) -> _Points:
    return [
        (_number(f"{where}: X", e.get("X")), _number(f"{where}: Y", e.get("Y"))) for e in elements
    ]


def _number(where: str, text: str | None) -> float:
    try:
        value = float((text or "").replace(",", "."))  # ASAP writes the decimal comma of the system
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise DataError(f"{where} is {text!r}; it needs to be a number")
    return value


def _notes(path: Path, skipped: Counter[str]) -> list[str]:
    return [f"{path}: {count} {reason}" for reason, count in sorted(skipped.items())]
