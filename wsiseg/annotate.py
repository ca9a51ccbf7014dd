"""The steps in order: one slide, or every slide of a folder or manifest."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import platform
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from wsiseg.annotations import Annotations
from wsiseg.compute import open_executor
from wsiseg.config import Config
from wsiseg.errors import ConfigError, SlideError, SlideOpenError, StoreError, WsisegError
from wsiseg.geometry import Size
from wsiseg.grid import TileGrid
from wsiseg.outline import outline_regions
from wsiseg.qupath import lint_geojson, write_geojson, write_import_script
from wsiseg.report import (
    measure_classes,
    write_html,
    write_measurements,
    write_overlay,
    write_summary,
)
from wsiseg.slide import find_slides, open_slide
from wsiseg.stitch import stitch_labels
from wsiseg.store import SlideStore
from wsiseg.tile import tile_slide

__all__ = ["Job", "OutputTree", "SlideResult", "annotate", "annotate_slide", "plan_jobs"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Job:
    """One slide to annotate."""

    path: Path
    name: str
    """Path of the outputs below each output folder, without extension; unique in a run."""
    mpp: float | None = None
    """Level-0 µm/px from the manifest, over the metadata."""


@dataclass(frozen=True)
class SlideResult:
    """What became of one slide; one row of `summary.csv`."""

    slide: str
    path: str
    status: str
    """`done`, `no tissue`, `failed` or `planned` (dry run)."""
    mpp: float | None = None
    mpp_source: str = ""
    tiles: int = 0
    seconds: float = 0.0
    tissue_mm2: float = 0.0
    class_mm2: dict[str, float] = field(default_factory=dict)
    error: str = ""


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


def annotate(
    inputs: str | Path | Iterable[str | Path],
    out: str | Path,
    config: Config | None = None,
    *,
    executor: str = "processes",
    workers: int | None = None,
    nested: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Callable[[Job, str, int, int], None] | None = None,
) -> list[SlideResult]:
    """Annotate slides, folders of slides or CSV manifests; write everything below `out`.

    Finished work is kept and resumed; `overwrite` redoes each given slide. A slide that fails is
    recorded and the rest go on. `progress` is called with (job, step, blocks done, blocks).

    Returns
    -------
    One `SlideResult` a slide, in input order.

    Raises
    ------
    SlideOpenError
        If an input does not exist, or a folder holds no slide.
    ConfigError
        If a manifest is malformed.
    """
    config = config or Config()
    many = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    jobs = plan_jobs([Path(one) for one in many], nested=nested)
    tree = OutputTree(Path(out))
    if dry_run:
        return [_guard(job, lambda job: _plan(job, config)) for job in jobs]
    tree.root.mkdir(parents=True, exist_ok=True)
    results, measured = [], []
    with open_executor(executor, workers) as pool:
        for job in jobs:
            report = _reporter(progress, job)
            rows: list[dict[str, object]] = []

            def work(job: Job, report: Progress = report, rows: list[dict[str, object]] = rows) -> SlideResult:  # fmt: skip
                result, annotations = annotate_slide(
                    job, tree, config, pool, overwrite=overwrite, progress=report
                )
                rows += measure_classes(annotations, result.tissue_mm2)
                return result

            results.append(_guard(job, work))
            measured += rows
            _write_tables(tree, jobs, results, measured)
    _write_run(tree, config, results, executor, workers)
    write_import_script(tree.root)
    return results


def annotate_slide(
    job: Job,
    tree: OutputTree,
    config: Config,
    executor: Executor,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[SlideResult, Annotations]:
    """All steps on one slide: tile, predict, stitch, outline, export, picture.

    Raises
    ------
    WsisegError
        If a step cannot be done; what was finished before it stays.
    """
    from wsiseg.predict import predict_tiles  # loads torch

    started = time.perf_counter()
    if job.mpp is not None:
        config = config.model_copy(
            update={"slide": config.slide.model_copy(update={"mpp_override": job.mpp})}
        )
    path = tree.store(job.name)
    _check_same_slide(path, job, config, overwrite)
    if overwrite and path.exists():
        SlideStore(path).clear_marks()
    store = tile_slide(job.path, path, config, executor, progress, tissue=tree.tissue(job.name))
    predicted = predict_tiles(path, config, executor, progress)
    stitch_labels(path, config, executor, progress, previous=predicted)
    annotations = outline_regions(path, config, executor, progress)
    _export(job, tree, config, annotations)
    write_overlay(SlideStore(path), tree.overlay(job.name), annotations)
    return _result(job, store, annotations, time.perf_counter() - started), annotations


def plan_jobs(inputs: Sequence[Path], *, nested: bool = False) -> list[Job]:
    """Every slide of `inputs` (slides, folders, CSV manifests), with unique output names.

    An output is named as its slide, in the same sub-folder; slides that would collide keep their
    extension, and if that is not enough get a short hash of their path.
    """
    found: list[tuple[Path, Path, float | None]] = []  # slide, name with extension, mpp
    for source in inputs:
        if source.is_dir() and source.suffix.lower() != ".zarr":
            slides = find_slides(source, nested)
            if not slides:
                hint = "" if nested else "; use --nested to look into sub-folders"
                raise SlideOpenError(f"{source}: holds no slide{hint}")
            found += [(slide, slide.relative_to(source), None) for slide in slides]
        elif source.suffix.lower() == ".csv":
            found += [(slide, Path(slide.name), mpp) for slide, mpp in _read_manifest(source)]
        elif source.exists():
            found.append((source, Path(source.name), None))
        else:
            raise SlideOpenError(f"{source}: does not exist")
    unique = {path.resolve(): (path, name, mpp) for path, name, mpp in reversed(found)}
    kept = list(reversed(unique.values()))
    stems = Counter(str(name.with_suffix("")).casefold() for _, name, _ in kept)
    names = Counter(str(name).casefold() for _, name, _ in kept)
    return [
        Job(path, _output_name(path, name, stems, names), mpp) for path, name, mpp in kept
    ]


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


def _guard(job: Job, work: Callable[[Job], SlideResult]) -> SlideResult:
    """Run `work`; a failure of this slide becomes its row instead of the end of the batch."""
    started = time.perf_counter()
    try:
        return work(job)
    except WsisegError as error:
        message = str(error)
    except (OSError, MemoryError, RuntimeError, ValueError) as error:
        message = f"{type(error).__name__}: {error}"
    return SlideResult(
        job.name, str(job.path), "failed", seconds=time.perf_counter() - started, error=message
    )


def _plan(job: Job, config: Config) -> SlideResult:
    with open_slide(job.path, _slide_config(job, config)) as slide:
        size: Size = slide.raster_size(config.tile.mpp)
        tile = config.tile
        grid = TileGrid(size.height, size.width, tile.tile, tile.stride, tile.block)
        return SlideResult(
            job.name, str(job.path), "planned", mpp=slide.mpp.x, mpp_source=slide.mpp_source,
            tiles=grid.rows * grid.cols,
        )  # fmt: skip


def _slide_config(job: Job, config: Config) -> Config:
    raise NotImplementedError


def _check_same_slide(path: Path, job: Job, config: Config, overwrite: bool) -> None:
    """Refuse to write one slide's results over another's of the same name."""
    if overwrite or not path.exists():
        return
    try:
        known = SlideStore(path).slide
    except StoreError:
        return  # an interrupted creation, or not ours: `SlideStore.create` tells them apart
    with open_slide(job.path, config.slide) as slide:
        if slide.identity != known["identity"]:
            raise StoreError(
                f"{path}: holds the results of another slide ({known['path']}); choose another "
                f"output folder, or --overwrite to replace them"
            )


def _export(job: Job, tree: OutputTree, config: Config, annotations: Annotations) -> None:
    path = write_geojson(annotations, tree.geojson(job.name, config.export.gzip))
    errors = [finding for finding in lint_geojson(path) if finding.severity == "error"]
    if errors:
        raise StoreError(f"{path}: breaks a QuPath rule, please report it: {errors[0]}")


def _result(
    job: Job, store: SlideStore, annotations: Annotations, seconds: float
) -> SlideResult:
    mask, mask_mpp, _ = store.read_tissue()
    tissue = float(mask.sum()) * mask_mpp**2 / 1e6
    areas = dict.fromkeys(annotations.palette.names, 0.0)
    for region in annotations.regions:
        areas[annotations.palette.names[region.label]] += annotations.area_um2(region) / 1e6
    return SlideResult(
        job.name, str(job.path), "done" if mask.any() else "no tissue",
        mpp=float(store.slide["mpp"][0]), mpp_source=str(store.slide["mpp_source"]),
        tiles=store.count_tiles(), seconds=seconds, tissue_mm2=tissue, class_mm2=areas,
    )  # fmt: skip
