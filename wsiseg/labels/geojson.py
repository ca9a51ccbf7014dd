"""Labels out of QuPath's GeoJSON, and corrections of a finished map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from wsiseg.errors import DataError, GeoJsonError
from wsiseg.labels.mark import Drawn, Mark, State
from wsiseg.qupath import (
    Feature,
    Finding,
    describe_left_out,
    read_facts,
    read_geojson,
    read_stamp,
    restore_outlines,
)

__all__ = ["GEOJSON", "read_geojson_marks"]

GEOJSON = (".geojson", ".json", ".geojson.gz", ".json.gz", ".zip")

_AREAS = ("Polygon", "MultiPolygon")
_POINTS = ("Point", "MultiPoint")


def read_geojson_marks(path: Path, own: Sequence[Path] = ()) -> Drawn:
    """Every annotation that has a class; corrections say so in ``metadata.wsiseg``.

    Parameters
    ----------
    own
        Our own files of the slide, for what QuPath lost when it exported `path`.

    Raises
    ------
    DataError
        If the file cannot be read, or is no GeoJSON; names feature and rule.
    """
    left_out: list[Finding] = []
    try:
        features, facts = read_facts(path, left_out)
    except GeoJsonError as error:
        raise DataError(str(error)) from error
    features, restored = restore_outlines(features, list(_read_own(path, own, features)))
    found, passed = Drawn(size=_size_of(facts)), Counter[str]()
    for number, feature in enumerate(features):
        where = f"{path}: feature {number}"
        reason = _useless(feature)
        if reason:
            passed[reason] += 1
            continue
        state = _state_of(feature, where)
        found.marks.append(
            Mark(feature.class_name or "", feature.geometry, where, state, feature.id or "")
        )
    found.notes = [f"{path}: {count} {reason}" for reason, count in sorted(passed.items())]
    if restored:
        found.notes.append(
            f"{path}: {restored} outline(s) that QuPath exported in part are taken from {own[0]}"
        )
    if left_out:
        found.notes.append(f"{path}: {describe_left_out(left_out)}")
    return found


def _size_of(facts: Mapping[str, Any]) -> tuple[float, float] | None:
    """What ``qupath/export.groovy`` notes of the image; None where nobody did."""
    size = facts.get("size")
    numbers = isinstance(size, list) and len(size) == 2 and all(isinstance(v, int) for v in size)
    return (size[0], size[1]) if isinstance(size, list) and numbers and min(size) > 0 else None


def _read_own(path: Path, own: Sequence[Path], features: Sequence[Feature]) -> Iterator[Feature]:
    """Those of our own regions that `features` bear the ids of."""
    ids = {feature.id for feature in features} - {None}
    for file in own if ids else ():
        if not file.samefile(path) and read_stamp(file) is not None:
            yield from (feature for feature in read_geojson(file) if feature.id in ids)


def _useless(feature: Feature) -> str:
    """Why a feature says nothing of classes; empty if it does."""
    if feature.geometry.is_empty:
        return "of no size passed over"
    if feature.geometry.geom_type not in _AREAS + _POINTS:
        return "line(s) passed over: draw an area or a point"
    if _metadata(feature):
        return ""  # a map of many regions comes as detections
    if feature.object_type != "annotation":
        return (
            f"{feature.object_type}(s) passed over, as nobody drew them: those that you checked "
            f"must be annotations"
        )
    return "" if feature.class_name else "without a class passed over"


def _metadata(feature: Feature) -> str:
    known = feature.properties.get("metadata")
    return str(known.get("wsiseg", "")) if isinstance(known, dict) else ""


def _state_of(feature: Feature, where: str) -> State:
    text = _metadata(feature)
    for state in get_args(State):
        if text == state:
            if state in ("reclassified", "deleted") and not feature.id:
                raise DataError(f"{where}: is {state} but has no id, which says what region it was")
            return state  # type: ignore[no-any-return]  # one of the literals
    known = ", ".join(filter(None, get_args(State)))
    raise DataError(f"{where}: metadata.wsiseg is {text!r}; known are {known}")
