"""The steps in order, on one slide."""

from __future__ import annotations

import time
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial

from wsiseg.compiling import loading
from wsiseg.compute import Progress, Spent, Step, run_steps
from wsiseg.config import Config
from wsiseg.lock import hold
from wsiseg.model.scale import describe_mismatch, read_scale, settle_scale
from wsiseg.pyramid import plan_pyramid
from wsiseg.resolution import describe_enlargement, plan_grid
from wsiseg.run.jobs import Job, OutputTree
from wsiseg.slide import open_slide
from wsiseg.store import SlideStore
from wsiseg.tile import describe_damage, plan_tile

__all__ = ["UNLIKE_SHARE", "SlideResult", "annotate_slide", "plan_slide"]


UNLIKE_SHARE = 0.35
"""A slide is noted as unlike the training patches if a larger share of its tiles is far from them:
of 32 slides that a model never saw, two were, and 31 of them with the dyes of IHC."""


@dataclass(frozen=True)
class SlideResult:
    """What became of one slide; one row of `summary.csv`."""

    slide: str
    path: str
    status: str
    """`done`, `no tissue`, `failed`, `same file` (as another; not done again) or `planned`."""
    mpp: float | None = None
    mpp_source: str = ""
    tiles: int = 0
    damaged_tiles: int = 0
    """Tiles of the slide's file that could not be decoded and were taken for glass."""
    seconds: float = 0.0
    peak_mb: float | None = None
    """Peak memory of the run up to the end of this slide, in 10^6 bytes."""
    tissue_mm2: float = 0.0
    class_mm2: dict[str, float] = field(default_factory=dict)
    measurements: list[dict[str, object]] = field(default_factory=list)
    """Rows of `measurements.csv`, one a class."""
    outdated: tuple[str, ...] = ()
    """Outputs, below the output folder, that do not show this map; `note` names them too."""
    note: str = ""
    """What a person should know about the slide, and which outputs have another form than usual."""
    error: str = ""


def annotate_slide(
    job: Job,
    tree: OutputTree,
    config: Config,
    executor: Executor,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    spent: Spent | None = None,
) -> SlideResult:
    """Do all steps on one slide: tile, predict, stitch, outline, export, picture.

    The first three overlap: a block is predicted as soon as its pixels are there, and stitched as
    soon as its neighbours are predicted.

    Raises
    ------
    WsisegError
        If a step fails; what was finished before is kept.
    """
    started = time.perf_counter()
    config = _configure(job, config)
    path = tree.store(job.name)
    with hold(path) as run:
        store, tile = plan_tile(
            job.path, path, config, tissue=tree.tissue(job.name), overwrite=overwrite, run=run,
            draw=False,
        )  # fmt: skip
        image = plan_pyramid(path, "tile", tile.digest, tile.digests, run)
        later = partial(_plan_after_tiling, tree, job.name, config, tile, run)
        run_steps(executor, [tile, *image], progress, spent, later)
        from wsiseg.run.after_tiling import outline_and_write  # loaded by now, beside the reading

        rows, notes, outdated = outline_and_write(
            tree, job.name, config, store.tissue_mm2, executor, progress, overwrite=overwrite
        )
        damage = describe_damage(store, config)
        damaged = len(store.read_damage()) if damage else 0
        scale = describe_mismatch(store.mpp, store.grid.tile, read_scale(config.predict))
    notes = (*notes, *filter(None, [damage]), *scale)
    if store.tissue_outline:
        outline = tree.tissue(job.name).relative_to(tree.root).as_posix()
        notes = (f"its tissue is as drawn in {outline}", *notes)
    result = _result(job, store, rows, notes, time.perf_counter() - started)
    return replace(result, damaged_tiles=damaged, outdated=outdated)


def _plan_after_tiling(
    tree: OutputTree, name: str, config: Config, tile: Step, run: str
) -> list[Step]:
    """Plan the steps after tiling; loads their modules first, which takes seconds."""
    with loading():
        from wsiseg.run.after_tiling import plan_after_tiling
    return plan_after_tiling(tree, name, config, tile, run)


def plan_slide(job: Job, config: Config) -> SlideResult:
    """Return what would be done with a slide, without doing it."""
    with open_slide(job.path, _configure(job, config).slide) as slide:
        grid, mpp = plan_grid(slide, settle_scale(config).tile)
        notes = (*slide.notes, *describe_enlargement(slide.mpp, mpp))
        return SlideResult(
            job.name, str(job.path), "planned", mpp=slide.mpp.x, mpp_source=slide.mpp_source,
            tiles=grid.rows * grid.cols, note="; ".join(notes),
        )  # fmt: skip


def _configure(job: Job, config: Config) -> Config:
    """Return the run's settings, with this slide's own µm/px if the manifest gives one."""
    if job.mpp is None:
        return config
    slide = config.slide.model_copy(update={"mpp_override": job.mpp})
    return config.model_copy(update={"slide": slide})


def _describe_likeness(store: SlideStore) -> tuple[str, ...]:
    """Return a note if the slide's tissue is unlike the model's training patches."""
    distances = store.read_distances()
    if not len(distances) or (share := float((distances > 1).mean())) <= UNLIKE_SHARE:
        return ()
    note = (
        f"looks unlike what the model was taught: {100 * share:.0f} % of its tiles are far from "
        f"the training tiles (1 % would be usual); look at the map before you trust it"
    )
    return (note,)


def _result(
    job: Job, store: SlideStore, rows: list[dict[str, object]], notes: tuple[str, ...],
    seconds: float,
) -> SlideResult:  # fmt: skip
    tissue = store.tissue_mm2
    slide_notes = (*store.slide.get("notes", ()), *filter(None, [store.tissue_note]))
    enlarged = describe_enlargement(store.slide["mpp"], store.mpp)
    notes = (*slide_notes, *enlarged, *notes, *_describe_likeness(store))
    return SlideResult(
        job.name, str(job.path), "done" if tissue else "no tissue",
        mpp=float(store.slide["mpp"][0]), mpp_source=str(store.slide["mpp_source"]),
        tiles=store.count_tiles(), seconds=seconds, tissue_mm2=tissue,
        class_mm2={str(row["class"]): float(str(row["area_mm2"])) for row in rows},
        measurements=[{**row, "slide": job.name} for row in rows], note="; ".join(notes),
    )  # fmt: skip
