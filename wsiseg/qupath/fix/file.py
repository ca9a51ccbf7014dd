"""Write a repaired copy of a GeoJSON file, and report what was changed and dropped."""

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

_NAMESPACE = uuid.UUID("7b1c3c52-0b0e-5d0a-9a53-3a1f6f0a2c11")  # arbitrary; ids depend on it


def fix_geojson(path: str | Path, out: str | Path | None = None) -> tuple[Path, list[Repair]]:
    """Write a copy of any GeoJSON file that breaks no rule of QuPath's importer.

    Valid features are not changed, and the order is kept. The copy is one FeatureCollection with
    one feature per line. Findings about ``size`` remain, as leaving out regions is not a repair.

    Parameters
    ----------
    path : the file; it is not changed.
    out : the copy, ``.geojson`` or ``.json``; if not given, ``NAME.fixed.geojson`` beside `path`,
        which must not exist.

    Returns
    -------
    The copy's path, and every repair in file order.

    Raises
    ------
    GeoJsonError
        If the file cannot be read at all, or the copy would replace it, or would replace a file
        that was not given as `out`.
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
            raise GeoJsonError(f"{target}: already exists; name the copy with --out")
        return target
    target = Path(out)
    if not target.name.lower().endswith(EXTENSIONS[:2]):
        raise GeoJsonError(f"{target}: name the copy {' or '.join(EXTENSIONS[:2])}")
    if target.exists() and path.exists() and target.samefile(path):
        raise GeoJsonError(f"{target}: is the input file; choose another name for the copy")
    return target


class _Fixer:
    """Fixes the features of one file; adds what it does to `repairs`."""

    def __init__(self, features: list[dict[str, Any]], repairs: list[Repair]) -> None:
        self._features = features
        self._repairs = repairs
        families = [list(walk_children(feature)) for feature in features]
        flat = [member for family in families for member in family]
        self._numbers = {id(member): number for number, member in enumerate(flat)}
        self._broken = _find_broken(families)
        self._ids: set[str] = set()

    def fix(self) -> list[dict[str, Any]]:
        """Return features that break no rule, with their children; valid ones are not changed."""
        fixed: list[dict[str, Any]] = []
        for index, feature in enumerate(self._features):
            if index in self._broken:
                fixed += self._fix_feature(feature)
            else:
                fixed.append(self._fix_ids(feature))
        unfixable = _find_broken([list(walk_children(feature)) for feature in fixed])
        for finding in unfixable.values():
            message = f"it cannot be repaired: {finding.message}"
            self._repairs.append(Repair(finding.rule, message, dropped=True))
        return [feature for index, feature in enumerate(fixed) if index not in unfixable]

    def _fix_feature(self, feature: dict[str, Any]) -> list[dict[str, Any]]:
        """Fix one feature; return several for a GeometryCollection, its children if it is lost."""
        number = self._numbers.get(id(feature))
        repaired, changes = fix_members({**feature, "type": "Feature"})
        geometries, geometry_changes = fix_geometry(repaired.get("geometry"))
        for rule, message, dropped in changes + geometry_changes:
            self._repairs.append(Repair(rule, message, number, dropped))
        fixed: list[dict[str, Any]] = []
        for geometry in geometries:
            # The first of several keeps the id and the children.
            one = {**repaired, "geometry": geometry, "properties": dict(repaired["properties"])}
            if fixed:
                one.pop("id", None)
            else:
                one = self._fix_id(one, number)
            fixed.append(one)
        children = repaired["properties"].pop("childObjects", [])
        fixed_children = [
            grandchild
            for child in (children if isinstance(children, list) else [])
            if isinstance(child, dict)
            for grandchild in self._fix_feature(child)
        ]
        for one in fixed:
            one["properties"].pop("childObjects", None)
        if fixed and fixed_children:
            fixed[0]["properties"]["childObjects"] = fixed_children
        return fixed or fixed_children

    def _fix_ids(self, feature: dict[str, Any]) -> dict[str, Any]:
        """Fix the ids of an otherwise valid feature and its children."""
        repaired = self._fix_id(feature, self._numbers[id(feature)])
        children = feature.get("properties", {}).get("childObjects")
        if not isinstance(children, list):
            return repaired
        fixed = [self._fix_ids(child) for child in children if isinstance(child, dict)]
        return {**repaired, "properties": {**repaired["properties"], "childObjects": fixed}}

    def _fix_id(self, feature: dict[str, Any], number: int | None) -> dict[str, Any]:
        if "id" not in feature:
            return feature
        value = feature["id"]
        is_duplicate = isinstance(value, str) and value in self._ids
        if isinstance(value, str) and is_uuid(value) and not is_duplicate:
            self._ids.add(value)
            return feature
        is_text = isinstance(value, str | int | float)
        rule = "id-duplicate" if is_duplicate else "id-uuid" if is_text else "id-null"
        new_id = str(uuid.uuid5(_NAMESPACE, repr((number, feature["geometry"]))))
        self._ids.add(new_id)
        self._repairs.append(Repair(rule, f"the id {value!r:.60} is {new_id} now", number))
        return {**feature, "id": new_id}


def _find_broken(families: list[list[dict[str, Any]]]) -> dict[int, Finding]:
    """Return one finding per family (a feature and its children) that breaks a rule."""
    members = [member for family in families for member in family]
    owners = [which for which, family in enumerate(families) for _ in family]
    findings = list(lint_features(members))
    for index, member in enumerate(members):
        if member.get("type") != "Feature":
            findings.append(Finding("feature-type", "is not a Feature", index))
    return {owners[finding.feature or 0]: finding for finding in findings}
