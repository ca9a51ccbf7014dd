"""Which slides a run is about, and where their outputs lie."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsiseg.errors import ConfigError, SlideOpenError
from wsiseg.slide import find_slides, gather_slide, name_slide

__all__ = ["Job", "OutputTree", "plan_jobs"]


@dataclass(frozen=True)
class Job:
    """One slide to annotate."""

    path: Path
    name: str
    """Path of the outputs below each output folder, without extension; unique in a run."""
    mpp: float | None = None
    """Level-0 µm/px from the manifest, over the metadata."""


@dataclass(frozen=True)
class OutputTree:
    """Where the outputs of a run lie."""

    root: Path

    def store(self, name: str) -> Path:
        """The Zarr store of a slide."""
        return self.root / "slides" / f"{name}.zarr"

    def geojson(self, name: str, gzip: bool = False) -> Path:
        """The polygons of a slide."""
        return self.root / "geojson" / f"{name}.geojson{'.gz' if gzip else ''}"

    def overlay(self, name: str) -> Path:
        """The picture of a slide."""
        return self.root / "overlays" / f"{name}.jpg"

    def tissue(self, name: str) -> Path:
        """The editable tissue outline of a slide."""
        return self.root / "tissue" / f"{name}.geojson"


def plan_jobs(inputs: Sequence[Path], *, nested: bool = False) -> list[Job]:
    """Every slide of `inputs` (slides, folders, CSV manifests), with unique output names.

    An output is named as its slide, in the same sub-folder; slides that would collide keep their
    extension, and if that is not enough get a short hash of their path.
    """
    found: list[tuple[Path, Path, float | None]] = []  # slide, name with extension, mpp
    for source in map(gather_slide, inputs):
        if source.is_dir() and source.suffix.lower() != ".zarr":
            slides = find_slides(source, nested)
            if not slides:
                hint = "" if nested else "; use --nested to look into sub-folders"
                raise SlideOpenError(f"{source}: holds no slide{hint}")
            found += [(slide, _name_below(slide, source), None) for slide in slides]
        elif source.suffix.lower() == ".csv":
            rows = ((gather_slide(slide), mpp) for slide, mpp in _read_manifest(source))
            found += [(slide, Path(name_slide(slide)), mpp) for slide, mpp in rows]
        elif source.exists():
            found.append((source, Path(name_slide(source)), None))
        else:
            raise SlideOpenError(f"{source}: does not exist")
    unique = {path.resolve(): (path, name, mpp) for path, name, mpp in reversed(found)}
    kept = list(reversed(unique.values()))
    stems = Counter(str(name.with_suffix("")).casefold() for _, name, _ in kept)
    names = Counter(str(name).casefold() for _, name, _ in kept)
    return [Job(path, _output_name(path, name, stems, names), mpp) for path, name, mpp in kept]


def _name_below(slide: Path, folder: Path) -> Path:
    """The slide's name in the sub-folder of `folder` in which it lies."""
    return (
        Path(name_slide(slide))
        if slide == folder
        else (slide.relative_to(folder).parent / name_slide(slide))
    )


def _output_name(path: Path, name: Path, stems: Counter[str], names: Counter[str]) -> str:
    if stems[str(name.with_suffix("")).casefold()] == 1:
        return name.with_suffix("").as_posix()
    if names[str(name).casefold()] == 1:
        return name.as_posix()
    tag = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    return f"{name.as_posix()}-{tag}"


def _read_manifest(path: Path) -> list[tuple[Path, float | None]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if "slide" not in (reader.fieldnames or ()):
            raise ConfigError(
                f"{path}: has the columns {reader.fieldnames}; a manifest needs 'slide' "
                f"and may have 'mpp'"
            )
        rows = []
        for number, row in enumerate(reader, start=2):
            text = (row.get("mpp") or "").strip()
            try:
                mpp = float(text) if text else None
            except ValueError as error:
                raise ConfigError(f"{path}, line {number}: mpp {text!r} is no number") from error
            slide = Path(row["slide"].strip())
            rows.append((slide if slide.is_absolute() else path.parent / slide, mpp))
    return rows
