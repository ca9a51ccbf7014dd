"""The steps in order: one slide, or every slide of a folder or manifest."""

from __future__ import annotations

import csv
import hashlib
import json
import platform
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import BrokenExecutor, Executor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from wsiseg.annotations import Annotations
from wsiseg.compute import Progress, open_executor
from wsiseg.config import Config
from wsiseg.errors import ConfigError, SlideOpenError, StoreError, WsisegError
from wsiseg.export import export_formats
from wsiseg.outline import outline_regions
from wsiseg.qupath import export_geojson, write_import_script
from wsiseg.report import measure_classes, write_overlay, write_tables
from wsiseg.slide import find_slides, open_slide
from wsiseg.stitch import stitch_labels
from wsiseg.store import SlideStore
from wsiseg.tile import plan_grid, tile_slide

__all__ = ["Job", "OutputTree", "SlideResult", "annotate", "annotate_slide", "plan_jobs"]


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
    measurements: list[dict[str, object]] = field(default_factory=list)
    """Rows of `measurements.csv`, one a class."""
    note: str = ""
    """What was written in another form than usual, and why."""
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
    executor: str = "threads",
    workers: int | None = None,
    nested: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Callable[[Job, str, int, int], None] | None = None,
) -> list[SlideResult]:
    """Annotate slides, folders of slides or CSV manifests; write everything below `out`.

    Finished work is kept and resumed; `overwrite` redoes each given slide. A slide that fails is
    recorded and the rest go on. `progress` is called with (job, step, blocks done, blocks), and
    with (job, "slides", slides done, slides) after each slide.

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
    results: list[SlideResult] = []
    with ExitStack() as stack:
        pool = stack.enter_context(open_executor(executor, workers))
        for job in jobs:
            work = partial(
                annotate_slide, tree=tree, config=config, executor=pool, overwrite=overwrite,
                progress=partial(progress, job) if progress else None,
            )  # fmt: skip
            results.append(_guard(job, work))
            _write_tables(tree, results)
            if progress:
                progress(job, "slides", len(results), len(jobs))
            if results[-1].status == "failed" and not _is_alive(pool):
                stack.close()
                pool = stack.enter_context(open_executor(executor, workers))
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
) -> SlideResult:
    """All steps on one slide: tile, predict, stitch, outline, export, picture.

    Raises
    ------
    WsisegError
        If a step cannot be done; what was finished before it stays.
    """
    from wsiseg.predict import predict_tiles  # loads torch

    started = time.perf_counter()
    config = _configure(job, config)
    path = tree.store(job.name)
    _check_same_slide(path, job, config, overwrite)
    if overwrite and path.exists():
        SlideStore(path).clear_marks()
    store = tile_slide(job.path, path, config, executor, progress, tissue=tree.tissue(job.name))
    predict_tiles(path, config, executor, progress)
    stitch_labels(path, config, executor, progress)
    annotations = outline_regions(path, config, executor, progress)
    notes: tuple[str, ...] = ()
    if "geojson" in config.export.formats:
        geojson = tree.geojson(job.name, config.export.gzip)
        notes = export_geojson(annotations, geojson, config.export).notes
    export_formats(store, annotations, tree.root, job.name, config.export)
    write_overlay(SlideStore(path), tree.overlay(job.name), annotations)
    return _result(job, store, annotations, notes, time.perf_counter() - started)


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
    return [Job(path, _output_name(path, name, stems, names), mpp) for path, name, mpp in kept]


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
    except BrokenExecutor as error:
        message = f"a worker process died (out of memory, or a crash in a reader): {error}"
    except Exception as error:  # noqa: BLE001  # whatever one slide does, the others go on
        message = f"{type(error).__name__}: {error}"
    return SlideResult(
        job.name, str(job.path), "failed", seconds=time.perf_counter() - started, error=message
    )


def _plan(job: Job, config: Config) -> SlideResult:
    with open_slide(job.path, _configure(job, config).slide) as slide:
        grid, _ = plan_grid(slide, config.tile)
        return SlideResult(
            job.name, str(job.path), "planned", mpp=slide.mpp.x, mpp_source=slide.mpp_source,
            tiles=grid.rows * grid.cols,
        )  # fmt: skip


def _configure(job: Job, config: Config) -> Config:
    """The run's settings with this slide's own mpp, if the manifest gave one."""
    if job.mpp is None:
        return config
    slide = config.slide.model_copy(update={"mpp_override": job.mpp})
    return config.model_copy(update={"slide": slide})


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


def _is_alive(executor: Executor) -> bool:
    """Whether the executor still takes work: a process pool does not once a worker has died."""
    try:
        executor.submit(int).result()
    except BrokenExecutor:
        return False
    return True


def _result(
    job: Job, store: SlideStore, annotations: Annotations, notes: tuple[str, ...], seconds: float
) -> SlideResult:
    mask, mask_mpp, _ = store.read_tissue()
    tissue = float(mask.sum()) * mask_mpp**2 / 1e6
    rows = measure_classes(annotations, tissue)
    return SlideResult(
        job.name, str(job.path), "done" if mask.any() else "no tissue",
        mpp=float(store.slide["mpp"][0]), mpp_source=str(store.slide["mpp_source"]),
        tiles=store.count_tiles(), seconds=seconds, tissue_mm2=tissue,
        class_mm2={str(row["class"]): float(str(row["area_mm2"])) for row in rows},
        measurements=[{**row, "slide": job.name} for row in rows], note="; ".join(notes),
    )  # fmt: skip


def _write_tables(tree: OutputTree, results: list[SlideResult]) -> None:
    """Write the tables with the rows of this run, and those of slides from earlier runs."""
    fresh = {result.slide for result in results}
    summary = [row for row in _read_rows(tree.root / "summary.csv") if row["slide"] not in fresh]
    measured = [
        row for row in _read_rows(tree.root / "measurements.csv") if row["slide"] not in fresh
    ]
    for result in results:
        row = asdict(result)
        areas, _ = row.pop("class_mm2"), row.pop("measurements")
        error = row.pop("error")
        summary.append(
            row | {f"{name}_mm2": area for name, area in areas.items()} | {"error": error}
        )
        measured += result.measurements
    write_tables(tree.root, summary, measured)


def _read_rows(path: Path) -> list[dict[str, object]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8-sig") as file:
        return [dict(row) for row in csv.DictReader(file)]


def _write_run(
    tree: OutputTree, config: Config, results: list[SlideResult], executor: str, workers: int | None
) -> None:
    """Keep what was run, with what, and how it ended, in `runs/`."""
    from wsiseg import __version__

    record = {
        "version": __version__,
        "python": platform.python_version(),
        "machine": platform.platform(),
        "executor": executor,
        "workers": workers,
        "config": config.model_dump(mode="json"),
        "results": [asdict(result) for result in results],
    }
    folder = tree.root / "runs"
    folder.mkdir(exist_ok=True)
    name = f"{time.strftime('%Y%m%dT%H%M%S')}_{uuid.uuid4().hex[:6]}.json"
    (folder / name).write_text(json.dumps(record, indent=1), encoding="utf-8")


class _CallableModule(ModuleType):
    """Lets ``wsiseg.annotate(...)`` mean the function even where this module was imported first.

    Importing a submodule binds its name in the package over the function of the same name.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> list[SlideResult]:
        return annotate(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
