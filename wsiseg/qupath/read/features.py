"""Read GeoJSON files, ours, QuPath's or others', as features."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shapely.geometry.base import BaseGeometry

from wsiseg.errors import GeoJsonError
from wsiseg.qupath.form.document import flatten_document, parse_document, read_documents
from wsiseg.qupath.form.finding import Finding
from wsiseg.qupath.form.members import is_root
from wsiseg.qupath.form.shapes import build_shapes

__all__ = [
    "Feature",
    "build_features",
    "describe_left_out",
    "is_ignored_class",
    "read_facts",
    "read_geojson",
]

# Rules that read_geojson tolerates: QuPath reads such files, or nothing is lost for us.
_HARMLESS = ("extension", "byte-order-mark", "not-a-number", "collection-type")
_HARMLESS_SHAPES = ("zero-area", "one-part", "ring-touching")
_OF_ONE = ("top-level", "feature-type")  # concern one element; the others may be valid
_ADVICE = "`wsiseg lint --fix` repairs what it can"
_MOST_NAMED = 10

_IGNORED = re.compile(r"ignored?(?![^\W\d_])", re.IGNORECASE)
"""How the names of classes to cut out begin: QuPath's is `Ignore*`, and its asterisk is easily left
out, or a word put before it. `Region*` only marks an area of interest."""


@dataclass(frozen=True)
class Feature:
    """One object of a GeoJSON file."""

    name: str | None
    """The object's own name."""
    geometry: BaseGeometry
    """Its shape, in the file's coordinates rounded to 0.01 px."""
    properties: dict[str, Any] = field(default_factory=dict)
    """Its properties, as in the file."""
    id: str | None = None
    """Its id, which QuPath keeps when the object is edited."""

    @property
    def class_name(self) -> str | None:
        """The name of its classification; parts of a derived class are joined by ``: ``.

        None if there is none, or it is null or blank; a number becomes text.
        """
        value = self.properties.get("classification")
        if isinstance(value, dict):
            parts = value.get("names")
            named = [str(p) for p in parts if p is not None] if isinstance(parts, list) else []
            value = ": ".join(named) if value.get("name") is None else value["name"]
        elif isinstance(value, list):
            value = ": ".join(str(part) for part in value if part is not None)
        return None if value is None or not str(value).strip() else str(value)

    @property
    def is_ignored(self) -> bool:
        """Whether to cut it out of the others, by its class."""
        return is_ignored_class(self.class_name or "")

    @property
    def object_type(self) -> str:
        """QuPath's type of the object: ``annotation``, ``detection``, ``cell``, ``tile`` ..."""
        return str(self.properties.get("objectType") or "annotation")


def is_ignored_class(name: str) -> bool:
    """Whether areas of a class are to be cut out: it begins with the word Ignore, as ``Ignore*``.

    So do ``Ignore``, ``Ignore folds*`` and ``Ignore*: Fold``.
    """
    return _IGNORED.match(name.strip()) is not None


def read_geojson(path: str | Path, left_out: list[Finding] | None = None) -> list[Feature]:
    """Read a FeatureCollection, a Feature, a bare geometry or an array of these.

    ``.geojson``, ``.json``, either with ``.gz``, and ``.zip`` are read. Objects that QuPath writes
    without a shape are skipped: the root object and empty ones.

    Parameters
    ----------
    path : the file.
    left_out : receives what is wrong with each unusable feature; the others are read. If not
        given, the first unusable feature raises an error.

    Raises
    ------
    GeoJsonError
        If the file cannot be read, is not GeoJSON, or has an unusable feature; names feature and
        rule.
    """
    return read_facts(path, left_out)[0]


def read_facts(
    path: str | Path, left_out: list[Finding] | None = None
) -> tuple[list[Feature], dict[str, Any]]:
    """Read features like `read_geojson`, and the facts that `write_geojson` stored."""
    path = Path(path)
    documents, findings = read_documents(path)
    _refuse(path, findings)
    return build_features(path, (_parse(path, text) for text in documents), left_out)


def build_features(
    source: Path, trees: Iterable[Any], left_out: list[Finding] | None = None
) -> tuple[list[Feature], dict[str, Any]]:
    """The same of GeoJSON that is parsed already; errors name `source`."""
    features: list[Feature] = []
    facts: dict[str, Any] = {}
    unusable: list[Finding] = []
    for tree in trees:
        members, findings = flatten_document(tree)
        single = [finding for finding in findings if finding.rule in _OF_ONE and members]
        _refuse(source, [finding for finding in findings if finding not in single])
        unusable += single
        features += _build(members, unusable)
        noted = tree.get("wsiseg") if isinstance(tree, dict) else None
        facts |= noted if isinstance(noted, dict) else {}
    if left_out is None:
        _refuse(source, unusable)
    else:
        left_out += unusable
    return features, facts


def _parse(path: Path, text: bytes) -> Any:
    tree, findings = parse_document(text)
    _refuse(path, findings)
    return tree


def describe_left_out(left_out: Sequence[Finding]) -> str:
    """Describe the unusable features in one line; empty if there are none."""
    if not left_out:
        return ""
    named = "; ".join(f"{finding.place}: {finding.message}" for finding in left_out[:_MOST_NAMED])
    more = f"; and {len(left_out) - _MOST_NAMED} more" if len(left_out) > _MOST_NAMED else ""
    return f"{len(left_out)} feature(s) left out ({named}{more}); {_ADVICE}"


def _build(members: list[dict[str, Any]], unusable: list[Finding]) -> list[Feature]:
    """Build features from usable shapes; add what is wrong with the others to `unusable`."""
    places, geometries = [], []
    for index, member in enumerate(members):
        if is_root(member):
            continue
        if not isinstance(member.get("geometry"), dict):
            message = '"geometry" is missing or null'
            unusable.append(Finding("geometry", message, index, _id_of(member)))
            continue
        places.append(index)
        geometries.append(member["geometry"])
    shapes, problems = build_shapes(geometries)
    broken = {p.which: p for p in reversed(problems) if p.rule not in _HARMLESS_SHAPES}
    for which in sorted(broken):
        _, rule, message = broken[which]
        index = places[which]
        unusable.append(Finding(rule, message, index, _id_of(members[index])))
    built = []
    for which, (index, shape) in enumerate(zip(places, shapes, strict=True)):
        if which in broken or shape is None:
            continue  # neither shape nor broken rule: an empty object
        properties = members[index].get("properties")
        properties = properties if isinstance(properties, dict) else {}
        name = properties.get("name")
        name = name if isinstance(name, str) else None
        built.append(Feature(name, shape, properties, _id_of(members[index])))
    return built


def _id_of(member: dict[str, Any]) -> str | None:
    value = member.get("id")
    return value if isinstance(value, str) else None


def _refuse(path: Path, findings: list[Finding]) -> None:
    for finding in findings:
        if finding.rule not in _HARMLESS:
            raise GeoJsonError(f"{path}: {finding}; see `wsiseg lint`, and {_ADVICE}")
