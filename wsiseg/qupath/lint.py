"""Every rule of QuPath's GeoJSON importer, held against a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from wsiseg.config import ExportConfig
from wsiseg.qupath.form.document import (
    flatten_document,
    parse_document,
    parse_lines,
    read_documents,
)
from wsiseg.qupath.form.finding import Finding
from wsiseg.qupath.form.java_area import cut_rows
from wsiseg.qupath.form.members import MEMBER_RULES, is_root, is_uuid
from wsiseg.qupath.form.shapes import build_shapes, ring_array

__all__ = ["lint_features", "lint_geojson"]

_BUDGET = ExportConfig()  # what we would keep to ourselves
_MANY_ANNOTATIONS, _MANY_VERTICES = _BUDGET.max_objects, _BUDGET.max_vertices
_MANY_MB = 200
_FEWEST_POINTS = 46  # fewer have too few edges and rows to be cut
_MOST_NAMED = 10


def lint_geojson(path: str | Path) -> list[Finding]:
    """Hold a GeoJSON file, ours or others', against every rule of QuPath's importer.

    Returns
    -------
    What breaks a rule, in file order; empty for a clean file.

    Raises
    ------
    GeoJsonError
        If the file cannot be read at all.
    """
    documents, findings = read_documents(Path(path))
    for text in documents:
        try:
            findings += _Run(text).lint(parse_lines(text))
        except ValueError:
            findings += _lint_whole(text)
    return findings


def _lint_whole(text: bytes) -> list[Finding]:
    tree, findings = parse_document(text)
    if tree is None and findings:
        return findings
    features, problems = flatten_document(tree)
    return findings + problems + _Run(text).lint([features])


class _Run:
    """One pass over the features of a text, batch by batch."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._ids: dict[str, int] = {}
        self._annotations = 0
        self._cut: list[int] = []

    def lint(self, batches: Iterable[list[dict[str, Any]]]) -> list[Finding]:
        """What breaks a rule, in feature order, then what is wrong with the whole."""
        findings: list[Finding] = []
        first = 0
        for batch in batches:
            found = [*lint_features(batch, first), *self._lint_ids(batch, first)]
            findings += sorted(found, key=lambda finding: finding.feature or 0)
            self._cut += [n for n, feature in enumerate(batch, first) if _is_cut(feature)]
            self._annotations += sum(_is_annotation(feature) for feature in batch)
            first += len(batch)
        return [*findings, *self._lint_cuts(), *self._lint_size()]

    def _lint_ids(self, features: list[dict[str, Any]], first: int) -> Iterator[Finding]:
        for index, feature in enumerate(features, first):
            name = _id_of(feature)
            if name is None or not is_uuid(name):
                continue  # QuPath gives it another
            other = self._ids.setdefault(name, index)
            if other != index:
                message = f"has the id of feature {other}; QuPath loads both without a warning"
                yield Finding("id-duplicate", message, index, name)

    def _lint_cuts(self) -> Iterator[Finding]:
        if self._cut:
            named = ", ".join(f"feature {index}" for index in self._cut[:_MOST_NAMED])
            named += ", ..." if len(self._cut) > _MOST_NAMED else ""
            yield Finding(
                "area-loss",
                f"of {len(self._cut)} jagged outline(s) without holes, {named}, QuPath 0.6 and 0.7 "
                f"lose part when they export them again or place them in a hierarchy (they draw "
                f"them whole, and 0.5 is right): simplify them (outline.simplify_um=2), or take "
                f"what you did not change from this file",
            )

    def _lint_size(self) -> Iterator[Finding]:
        # A vertex is one "[x,y]"; counting brackets is exact enough for advice.
        vertices, megabytes = self._text.count(b"["), len(self._text) / 1e6
        if self._annotations > _MANY_ANNOTATIONS:
            yield Finding(
                "size",
                f"{self._annotations:,} annotations; above {_MANY_ANNOTATIONS:,} QuPath grows "
                f"slow: leave out small regions, or write detections",
            )
        if vertices > _MANY_VERTICES:
            message = f"about {vertices:,} vertices; above {_MANY_VERTICES:,} use fewer"
            yield Finding("size", message)
        if megabytes > _MANY_MB:
            message = f"{megabytes:.0f} MB of JSON; above {_MANY_MB} QuPath may run out of memory"
            yield Finding("size", message)


def lint_features(features: list[dict[str, Any]], first: int = 0) -> Iterator[Finding]:
    """What breaks a rule among features; `first` is the index of the first in its file."""
    geometries, owners = [], []
    for index, feature in enumerate(features):
        for check in MEMBER_RULES:
            for rule, message in check(feature):
                yield Finding(rule, message, first + index, _id_of(feature))
        if isinstance(feature.get("geometry"), dict) and not is_root(feature):
            geometries.append(feature["geometry"])
            owners.append(index)
    _, problems = build_shapes(geometries)
    for problem in problems:
        owner = owners[problem.which]
        yield Finding(problem.rule, problem.message, first + owner, _id_of(features[owner]))


def _is_cut(feature: dict[str, Any]) -> bool:
    """Whether this is a polygon without holes that Java cuts in pieces."""
    geometry = feature.get("geometry")
    if not isinstance(geometry, dict) or geometry.get("type") != "Polygon":
        return False
    rings = geometry.get("coordinates")
    if not isinstance(rings, list) or len(rings) != 1 or not isinstance(rings[0], list):
        return False
    if len(rings[0]) < _FEWEST_POINTS:
        return False
    ring = ring_array(rings[0])
    return ring is not None and len(cut_rows(ring)) > 0


def _is_annotation(feature: dict[str, Any]) -> bool:
    properties = feature.get("properties")
    kind = properties.get("objectType") if isinstance(properties, dict) else None
    return kind not in ("detection", "tile", "cell")


def _id_of(feature: dict[str, Any]) -> str | None:
    value = feature.get("id")
    return value if isinstance(value, str) else None
