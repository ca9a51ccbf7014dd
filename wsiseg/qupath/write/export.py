"""Annotations within a budget: as annotations, else detections, else packed, else in parts."""

from __future__ import annotations

import gzip
import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from wsiseg.annotations import Annotations
from wsiseg.atomic import free_name, put_aside
from wsiseg.config import ExportConfig
from wsiseg.errors import GeoJsonError
from wsiseg.qupath.form.stamp import keep_edited, read_stamp
from wsiseg.qupath.write.geojson import ObjectType, measure_geojson, write_geojson
from wsiseg.qupath.write.parts import PARTS_SUFFIX, count_vertices, is_part, write_parts

__all__ = ["Export", "export_geojson"]

_VERTEX, _FEATURE = 30, 1_000  # bytes that one never exceeds, so that most need no measuring
_PARTS = 8  # a part holds an eighth of the vertices that a file may hold


@dataclass(frozen=True)
class Export:
    """What was written of one slide."""

    path: Path
    """The file, or the folder of the parts."""
    object_type: ObjectType
    regions: int
    vertices: int
    notes: tuple[str, ...] = ()
    """What was stepped down and why, and which older output was put aside; a sentence each."""


def export_geojson(annotations: Annotations, path: str | Path, settings: ExportConfig) -> Export:
    """Write the regions at `path`, or as near to it as `settings`' budget allows.

    1. More regions than ``max_objects``: detections instead of annotations.
    2. More than ``max_mb`` of text: `path` with ``.gz``.
    3. More vertices than ``max_vertices``, or still more than ``max_mb``: a folder ``.parts`` of
       files that each hold one place of the slide, of which ``import.groovy`` loads those that the
       view or the selected annotations touch.

    The outlines themselves never change. What was stepped down is in the notes and, as ``budget``,
    in the file. An older output of the same slide in another form is renamed to ``.old``, so that
    it is not imported too. An output that somebody edited since, in this or another form, is kept
    as ``NAME.edited.geojson``; nothing is deleted.

    Raises
    ------
    GeoJsonError
        If a region breaks a rule of QuPath's, or what would be written replaces a file that was
        not named and that wsiseg did not write.
    """
    path = Path(path)
    vertices = int(count_vertices(annotations).sum())
    object_type: ObjectType = "annotation"
    notes = []
    if len(annotations.regions) > settings.max_objects:
        object_type = "detection"
        notes.append(
            f"{len(annotations.regions):,} regions are more than export.max_objects = "
            f"{settings.max_objects:,}: written as detections, not annotations"
        )
    target, more = _choose_form(annotations, path, settings, object_type, vertices)
    notes += more
    edited = _keep_edited(path)
    if target != path and target.exists() and not _is_ours(target):
        raise GeoJsonError(
            f"{target}: exists and was not written by wsiseg, and {path.name} is too large "
            f"({'; '.join(notes)}); move it, or name another output"
        )
    if notes:
        facts = {**annotations.provenance, "budget": "; ".join(notes)}
        annotations = replace(annotations, provenance=facts)
    if target.suffix == PARTS_SUFFIX:
        limit = max(settings.max_vertices // _PARTS, 1)
        _replace_parts(annotations, target, object_type, limit)
    else:
        write_geojson(annotations, target, object_type)
    notes += _put_others_aside(target) + edited
    return Export(target, object_type, len(annotations.regions), vertices, tuple(notes))


def _choose_form(
    annotations: Annotations,
    path: Path,
    settings: ExportConfig,
    object_type: ObjectType,
    vertices: int,
) -> tuple[Path, list[str]]:
    """Where to write, and why there."""
    parts = path.with_name(_base(path) + PARTS_SUFFIX)
    advice = (
        f"written in parts to {parts.name}; qupath/import.groovy loads those in view "
        f"(outline.simplify_um=2 would take fewer vertices)"
    )
    if vertices > settings.max_vertices:
        limit = f"export.max_vertices = {settings.max_vertices:,}"
        return parts, [f"{vertices:,} vertices are more than {limit}: {advice}"]
    packed = path.suffix.lower() == ".gz"
    if _VERTEX * vertices + _FEATURE * len(annotations.regions) <= settings.max_mb * 1e6:
        return path, []
    limit = f"export.max_mb = {settings.max_mb:g}"
    megabytes = measure_geojson(annotations, path, object_type) / 1e6
    if megabytes <= settings.max_mb:
        return path, []
    if packed:
        return parts, [f"{megabytes:.3g} MB, packed, are more than {limit}: {advice}"]
    smaller = path.with_name(path.name + ".gz")
    small = measure_geojson(annotations, smaller, object_type) / 1e6
    if small <= settings.max_mb:
        return smaller, [f"{megabytes:.3g} MB are more than {limit}: packed as {smaller.name}"]
    return parts, [f"{small:.3g} MB, packed, are more than {limit}: {advice}"]


def _keep_edited(path: Path) -> list[str]:
    """Move what somebody edited of an earlier output out of the way; a note each.

    Of the other forms than `path`, what was never ours stays where it is.
    """
    base, kept = _base(path), []
    for other in dict.fromkeys(
        [path, path.with_name(f"{base}.geojson"), path.with_name(f"{base}.geojson.gz")]
    ):
        if other == path or _is_ours(other):
            kept.append((other.name, keep_edited(other)))
    parts = path.with_name(base + PARTS_SUFFIX)
    for part in sorted(filter(is_part, parts.iterdir())) if parts.is_dir() else []:
        if read_stamp(part) is None:
            aside = free_name(parts.with_name(part.name), ".edited")
            os.replace(part, aside)
            kept.append((part.name, aside))
    return [f"{name} was edited: it is kept as {aside.name}" for name, aside in kept if aside]


def _base(path: Path) -> str:
    """a.geojson.gz, a.geojson, a.parts -> a."""
    return re.sub(r"(?i)\.(geojson|json)(\.gz)?$|\.parts$", "", path.name)


def _replace_parts(
    annotations: Annotations, folder: Path, object_type: ObjectType, limit: int
) -> None:
    """Write the parts beside `folder`, then put them in its place."""
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    former = folder.with_name(f".{folder.name}.{os.getpid()}.former")
    try:
        fresh.mkdir(parents=True)
        write_parts(annotations, fresh, _base(folder), object_type, limit)
        if folder.exists():
            os.replace(folder, former)
        os.replace(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    if former.exists():
        for part in filter(is_part, former.iterdir()):
            part.unlink()
        former.rmdir()  # `_is_ours` saw nothing but parts in it


def _put_others_aside(written: Path) -> list[str]:
    """Rename what is left of the same slide in another form; a note each."""
    base, notes = _base(written), []
    for suffix in (".geojson", ".geojson.gz", PARTS_SUFFIX):
        other = written.with_name(base + suffix)
        if other == written or not other.exists():
            continue
        if _is_ours(other):
            aside = put_aside(other)
            notes.append(f"{other.name} of an earlier run is now {aside.name}")
        else:
            notes.append(f"{other.name} is beside it and not wsiseg's: import one of them only")
    return notes


def _is_ours(path: Path) -> bool:
    """Whether `path` is a file as `write_geojson` writes it, or a folder of nothing but parts."""
    if path.is_dir():
        return all(is_part(child) for child in path.iterdir())
    start = b'{"type":"FeatureCollection","wsiseg":{'
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            return file.read(len(start)) == start
    except (OSError, EOFError):
        return False
