"""A repaired copy of a GeoJSON file, and what was changed and dropped in it."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Any

import orjson

from wsiseg.atomic import open_atomic
from wsiseg.errors import GeoJsonError
from wsiseg.qupath.fix.members import fix_members
from wsiseg.qupath.fix.salvage import salvage_features
from wsiseg.qupath.fix.shapes import fix_geometry
from wsiseg.qupath.form.document import EXTENSIONS, walk_children
from wsiseg.qupath.form.finding import Finding, Repair
from wsiseg.qupath.form.members import is_uuid
from wsiseg.qupath.form.stamp import END
from wsiseg.qupath.lint import lint_features

__all__ = ["fix_geojson"]

_NAMESPACE = uuid.UUID("7b1c3c52-0b0e-5d0a-9a53-3a1f6f0a2c11")  # any constant: ids hang on it


def fix_geojson(path: str | Path, out: str | Path | None = None) -> tuple[Path, list[Repair]]:
    """Write a copy of a GeoJSON file, ours or others', that breaks no rule of QuPath's importer.

    What is right stays as it is, in its order. The copy is one FeatureCollection, a feature a line.
    Only advice about ``size`` is left standing: leaving out regions is not a repair.

    Parameters
    ----------
    path : the file; it is only read.
    out : the copy, ``.geojson`` or ``.json``; ``NAME.fixed.geojson`` beside `path` if not given,
        which must not exist.

    Returns
    -------
    The copy's path, and every repair in file order.

    Raises
    ------
    GeoJsonError
        If the file cannot be read at all, or the copy would be written over it or over a file
        that was not named.
    """
    path = Path(path)
    target = _choose_target(path, out)
    features, members, repairs = salvage_features(path)
    fixed = _Fixer(features, repairs).fix()
    head = orjson.dumps({"type": "FeatureCollection", **members})
    with open_atomic(target) as file:
        file.write(head[:-1] + b',"features":[\n')
        file.write(b",\n".join(map(orjson.dumps, fixed)))
        file.write(END)
    return target, repairs


def _choose_target(path: Path, out: str | Path | None) -> Path:
    if out is None:
        base = re.sub(r"(?i)(\.(geojson|json))?(\.(gz|zip))?$", "", path.name)
        target = path.with_name(f"{base}.fixed.geojson")
        if target.exists():
            raise GeoJsonError(f"{target}: exists already; name the copy with --out")
        return target
    target = Path(out)
    if not target.name.lower().endswith(EXTENSIONS[:2]):
        raise GeoJsonError(f"{target}: name the copy {' or '.join(EXTENSIONS[:2])}")
    if target.exists() and path.exists() and target.samefile(path):
        raise GeoJsonError(f"{target}: is the file itself; name another for the copy")
    return target


class _Fixer:
    """One pass over the features of a file; adds to `repairs` what it does."""

    def __init__(self, features: list[dict[str, Any]], repairs: list[Repair]) -> None:
        self._features = features
        self._repairs = repairs
        everyone = [list(walk_children(feature)) for feature in features]
        flat = [one for family in everyone for one in family]
        self._numbers = {id(one): number for number, one in enumerate(flat)}
        self._broken = _find_broken(everyone)
        self._ids: set[str] = set()

    def fix(self) -> list[dict[str, Any]]:
        """Features that break no rule, with their children; what is right is not touched."""
        fixed: list[dict[str, Any]] = []
        for which, feature in enumerate(self._features):
            if which in self._broken:
                fixed += self._fix_feature(feature)
            else:
                fixed.append(self._fix_ids(feature))
        left = _find_broken([list(walk_children(feature)) for feature in fixed])
        for finding in left.values():
            message = f"it cannot be repaired: {finding.message}"
            self._repairs.append(Repair(finding.rule, message, dropped=True))
        return [feature for which, feature in enumerate(fixed) if which not in left]

    def _fix_feature(self, feature: dict[str, Any]) -> list[dict[str, Any]]:
        """One feature; several out of a GeometryCollection; its children if it is lost itself."""
        number = self._numbers.get(id(feature))
        settled, changes = fix_members({**feature, "type": "Feature"})
        geometries, more = fix_geometry(settled.get("geometry"))
        for rule, message, dropped in changes + more:
            self._repairs.append(Repair(rule, message, number, dropped))
        fixed: list[dict[str, Any]] = []
        for geometry in geometries:
            # The first of several keeps the id and the children.
            one = {**settled, "geometry": geometry, "properties": dict(settled["properties"])}
            if fixed:
                one.pop("id", None)
            else:
                one = self._fix_id(one, number)
            fixed.append(one)
        children = settled["properties"].pop("childObjects", [])
        found = [
            grandchild
            for child in (children if isinstance(children, list) else [])
            if isinstance(child, dict)
            for grandchild in self._fix_feature(child)
        ]
        for one in fixed:
            one["properties"].pop("childObjects", None)
        if fixed and found:
            fixed[0]["properties"]["childObjects"] = found
        return fixed or found

    def _fix_ids(self, feature: dict[str, Any]) -> dict[str, Any]:
        """A feature, and its children, of which nothing but an id may be wrong."""
        settled = self._fix_id(feature, self._numbers[id(feature)])
        children = feature.get("properties", {}).get("childObjects")
        if not isinstance(children, list):
            return settled
        fixed = [self._fix_ids(child) for child in children if isinstance(child, dict)]
        return {**settled, "properties": {**settled["properties"], "childObjects": fixed}}

    def _fix_id(self, feature: dict[str, Any], number: int | None) -> dict[str, Any]:
        if "id" not in feature:
            return feature
        value = feature["id"]
        known = isinstance(value, str) and value in self._ids
        if isinstance(value, str) and is_uuid(value) and not known:
            self._ids.add(value)
            return feature
        is_text = isinstance(value, str | int | float)
        rule = "id-duplicate" if known else "id-uuid" if is_text else "id-null"
        fresh = str(uuid.uuid5(_NAMESPACE, repr((number, feature["geometry"]))))
        self._ids.add(fresh)
        self._repairs.append(Repair(rule, f"the id {value!r:.60} is {fresh} now", number))
        return {**feature, "id": fresh}


def _find_broken(families: list[list[dict[str, Any]]]) -> dict[int, Finding]:
    """A finding of each family, of a feature and its children, in which a rule is broken."""
    members = [member for family in families for member in family]
    owners = [which for which, family in enumerate(families) for _ in family]
    findings = list(lint_features(members))
    for index, member in enumerate(members):
        if member.get("type") != "Feature":
            findings.append(Finding("feature-type", "is no Feature", index))
    return {owners[finding.feature or 0]: finding for finding in findings}
