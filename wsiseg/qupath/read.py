"""GeoJSON files, ours, QuPath's or others', read back as features."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shapely.geometry.base import BaseGeometry

from wsiseg.errors import GeoJsonError
from wsiseg.qupath.document import flatten_document, parse_document, read_documents
from wsiseg.qupath.finding import Finding
from wsiseg.qupath.shapes import build_shapes

__all__ = ["Feature", "read_facts", "read_geojson"]

# What read_geojson can live with: QuPath itself reads these, or nothing is lost for us.
_HARMLESS = ("extension", "byte-order-mark", "not-a-number", "collection-type")
_HARMLESS_SHAPES = ("zero-area", "one-part", "ring-touching")


@dataclass(frozen=True)
class Feature:
    """One object of a GeoJSON file."""

    name: str | None
    """The object's own name."""
    geometry: BaseGeometry
    """Its shape, in the file's coordinates rounded to 0.01 px."""
    properties: dict[str, Any] = field(default_factory=dict)
    """Its properties, as in the file."""

    @property
    def class_name(self) -> str | None:
        """The name of its classification; parts of a derived class are joined by ``: ``.

        None where it has none, or others wrote null or blanks; a number is its digits.
        """
        value = self.properties.get("classification")
        if isinstance(value, dict):
            parts = value.get("names")
            named = [str(p) for p in parts if p is not None] if isinstance(parts, list) else []
            value = ": ".join(named) if value.get("name") is None else value["name"]
        return None if value is None or not str(value).strip() else str(value)


def read_geojson(path: str | Path) -> list[Feature]:
    """Read a FeatureCollection, a Feature, a bare geometry or an array of these.

    ``.geojson``, ``.json``, either with ``.gz``, and ``.zip`` are read.

    Raises
    ------
    GeoJsonError
        If the file cannot be read, is no GeoJSON, or a shape is not one; names feature and rule.
    """
    return read_facts(path)[0]


def read_facts(path: str | Path) -> tuple[list[Feature], dict[str, Any]]:
    """What `read_geojson` reads, and what `write_geojson` noted about the whole."""
    path = Path(path)
    documents, findings = read_documents(path)
    _refuse(path, findings)
    features: list[Feature] = []
    facts: dict[str, Any] = {}
    for text in documents:
        tree, findings = parse_document(text)
        _refuse(path, findings)
        members, findings = flatten_document(tree)
        _refuse(path, findings)
        features += _build(path, members)
        noted = tree.get("wsiseg") if isinstance(tree, dict) else None
        facts |= noted if isinstance(noted, dict) else {}
    return features, facts


def _build(path: Path, members: list[dict[str, Any]]) -> list[Feature]:
    for index, member in enumerate(members):
        if not isinstance(member.get("geometry"), dict):
            _refuse(path, [Finding("geometry", '"geometry" is missing or null', index)])
    shapes, problems = build_shapes([member["geometry"] for member in members])
    _refuse(
        path,
        [
            Finding(problem.rule, problem.message, problem.which)
            for problem in problems
            if problem.rule not in _HARMLESS_SHAPES
        ],
    )
    built = []
    for member, shape in zip(members, shapes, strict=True):
        properties = member.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        name = properties.get("name")
        built.append(Feature(name if isinstance(name, str) else None, shape, properties))
    return built


def _refuse(path: Path, findings: list[Finding]) -> None:
    for finding in findings:
        if finding.rule not in _HARMLESS:
            raise GeoJsonError(f"{path}: {finding}; see `wsiseg lint`")
