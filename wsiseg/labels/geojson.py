"""Read labels and corrections of a finished map from QuPath's GeoJSON."""

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
    Origin,
    describe_left_out,
    move_features,
    read_facts,
    read_geojson,
    read_origin,
    read_stamp,
    restore_outlines,
)

__all__ = ["GEOJSON", "read_geojson_marks"]

GEOJSON = (".geojson", ".json", ".geojson.gz", ".json.gz", ".zip")

_AREAS = ("Polygon", "MultiPolygon")
_POINTS = ("Point", "MultiPoint")


def read_geojson_marks(path: Path, own: Sequence[Path] = ()) -> Drawn:
    """Read every annotation that has a class; ``metadata.wsiseg`` identifies corrections.

    Parameters
    ----------
    own
        Our own files of the slide, to restore what QuPath lost when it exported `path`.

    Raises
    ------
    DataError
        If the file cannot be read, or is not GeoJSON; names feature and rule.
    """
    left_out: list[Finding] = []
    try:
        features, facts = read_facts(path, left_out)
        origin = read_origin(facts, path)
        known = list(_read_own(path, own, features, origin))
    except GeoJsonError as error:
        raise DataError(str(error)) from error
    features, restored = restore_outlines(features, known)
    drawn, skipped = Drawn(size=_size_of(facts), origin=origin), Counter[str]()
    for number, feature in enumerate(features):
        where = f"{path}: feature {number}"
        reason = _why_skipped(feature)
        if reason:
            skipped[reason] += 1
            continue
        state = _state_of(feature, where)
        drawn.marks.append(
            Mark(
                feature.class_name or "", feature.geometry, where, state, feature.id or "",
                _metadata(feature, "map"),
            )
        )  # fmt: skip
    drawn.notes = [f"{path}: {count} {reason}" for reason, count in sorted(skipped.items())]
    if restored:
        drawn.notes.append(
            f"{path}: {restored} outline(s) that QuPath exported in part are taken from {own[0]}"
        )
    if left_out:
        drawn.notes.append(f"{path}: {describe_left_out(left_out)}")
    return drawn


def _size_of(facts: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the image size stored by ``qupath/export.groovy``; None if there is none."""
    size = facts.get("size")
    numbers = isinstance(size, list) and len(size) == 2 and all(isinstance(v, int) for v in size)
    return (size[0], size[1]) if isinstance(size, list) and numbers and min(size) > 0 else None


def _read_own(
    path: Path, own: Sequence[Path], features: Sequence[Feature], origin: Origin | None
) -> Iterator[Feature]:
    """Read our own regions whose ids occur in `features`, in the pixels of that file.

    One that states no `origin` is QuPath's, which takes the pixels of ours as they are.
    """
    ids = {feature.id for feature in features} - {None}
    for file in own if ids else ():
        stamp = None if file.samefile(path) else read_stamp(file)
        if stamp is not None:
            known = [feature for feature in read_geojson(file) if feature.id in ids]
            yield from move_features(known, read_origin(stamp, file), origin)


def _why_skipped(feature: Feature) -> str:
    """Say why a feature is not a label; empty if it is one."""
    if feature.geometry.is_empty:
        return "without an area skipped"
    if feature.geometry.geom_type not in _AREAS + _POINTS:
        return "line(s) skipped: draw an area or a point"
    if _metadata(feature):
        return ""  # large maps are written as detections
    if feature.object_type != "annotation":
        return (
            f"{feature.object_type}(s) skipped, as nobody drew them: turn those that you "
            f"checked into annotations"
        )
    return "" if feature.class_name else "without a class skipped"


def _metadata(feature: Feature, key: str = "wsiseg") -> str:
    metadata = feature.properties.get("metadata")
    return str(metadata.get(key, "")) if isinstance(metadata, dict) else ""


def _state_of(feature: Feature, where: str) -> State:
    text = _metadata(feature)
    for state in get_args(State):
        if text == state:
            if state in ("reclassified", "deleted") and not feature.id:
                raise DataError(f"{where}: is {state} but has no id to identify the region")
            return state  # type: ignore[no-any-return]  # one of the literals
    states = ", ".join(filter(None, get_args(State)))
    raise DataError(f"{where}: metadata.wsiseg is {text!r}; known are {states}")
