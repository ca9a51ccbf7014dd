"""Commands that turn slides into maps, whole or step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from wsiseg.cli.app import MAPS, app
from wsiseg.cli.messages import MESSAGES, write
from wsiseg.cli.options import (
    ConfigFile,
    Devices,
    Executor,
    Inputs,
    MaxMb,
    MaxObjects,
    MaxVertices,
    MppOverride,
    Origin,
    Out,
    Prompts,
    Quiet,
    Settings,
    StorePath,
    Workers,
    configure,
    with_given,
)
from wsiseg.cli.show import print_results, progress_bars, say, say_next
from wsiseg.formats import ExportFormat

if TYPE_CHECKING:
    from concurrent import futures

    from wsiseg.config import Config
    from wsiseg.export.earlier import State

__all__ = ["annotate", "export", "predict", "stitch", "tile"]


@app.command(rich_help_panel=MAPS, epilog="Example: wsiseg annotate SLIDES -o out")
def annotate(
    inputs: Inputs,
    out: Out,
    config: ConfigFile = None,
    settings: Settings = None,
    mpp_override: MppOverride = None,
    executor: Executor = "threads",
    workers: Workers = None,
    nested: Annotated[bool, typer.Option(help="Search folders within folders.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Redo the given slides.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only say what would be done.")] = False,
    prompts: Prompts = None,
    devices: Devices = None,
    origin: Origin = None,
    max_objects: MaxObjects = None,
    max_vertices: MaxVertices = None,
    max_mb: MaxMb = None,
    quiet: Quiet = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line on stdout for each event.")
    ] = False,
) -> None:
    """Tile, segment, stitch and outline slides; resumes what was interrupted."""
    from wsiseg.cli.run_view import show_run
    from wsiseg.config import Config
    from wsiseg.run import annotate as run

    MESSAGES.quiet = MESSAGES.quiet or quiet or as_json
    with show_run(as_json=as_json, resumes=not (overwrite or dry_run)) as take:
        options = {
            "predict.prompts": prompts, "predict.device": devices, "export.origin": origin,
            "export.max_objects": max_objects, "export.max_vertices": max_vertices,
            "export.max_mb": max_mb, "slide.mpp_override": mpp_override,
        }  # fmt: skip
        results = run(
            inputs, out, configure(Config, config, with_given(settings, options)),
            executor=executor, workers=workers, nested=nested, overwrite=overwrite,
            dry_run=dry_run, on_event=take,
        )  # fmt: skip
    print_results(results)
    if any(result.status == "failed" for result in results):
        if MESSAGES.log and not MESSAGES.quiet and not MESSAGES.describe_kept():
            write(f"Log: {MESSAGES.log}")
        raise typer.Exit(1)
    if not dry_run and any(result.status == "done" for result in results):
        say_next("View the maps, and correct them", "view", out)


@app.command(rich_help_panel=MAPS, epilog="Example: wsiseg tile slide.svs -o slide.zarr")
def tile(
    slide: Annotated[Path, typer.Argument(help="A slide.")],
    store: Annotated[
        str, typer.Option("--out", "-o", help="The .zarr store to write: a folder or a URL.")
    ],
    config: ConfigFile = None,
    settings: Settings = None,
    mpp_override: MppOverride = None,
    executor: Executor = "threads",
    workers: Workers = None,
    tissue: Annotated[
        Path | None,
        typer.Option(help="GeoJSON of the tissue outline: written, or read if you changed it."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option(help="Redo the store, also one of another slide.")
    ] = False,
) -> None:
    """Find the tissue of one slide and stream its tiles into a Zarr store."""
    from wsiseg.tile import tile_slide

    options = {"slide.mpp_override": mpp_override}
    given = with_given(settings, options)
    with _open_step(config, given, executor, workers, resumes=not overwrite) as step:
        tile_slide(slide, store, *step, tissue=tissue, overwrite=overwrite)


@app.command(
    rich_help_panel=MAPS,
    epilog="Example: wsiseg predict slide.zarr --set predict.checkpoint=tissue",
)
def predict(
    store: StorePath,
    config: ConfigFile = None,
    settings: Settings = None,
    executor: Executor = "threads",
    workers: Workers = None,
    prompts: Prompts = None,
    devices: Devices = None,
) -> None:
    """Run the model over a store's tiles and keep the CAMs in it."""
    from wsiseg.predict import predict_tiles

    options = {"predict.prompts": prompts, "predict.device": devices}
    given = with_given(settings, options)
    with _open_step(config, given, executor, workers, resumes=True) as step:
        predict_tiles(store, *step)


@app.command(rich_help_panel=MAPS, epilog="Example: wsiseg stitch slide.zarr")
def stitch(
    store: StorePath,
    config: ConfigFile = None,
    settings: Settings = None,
    executor: Executor = "threads",
    workers: Workers = None,
) -> None:
    """Blend a store's CAMs into label and confidence rasters."""
    from wsiseg.stitch import stitch_labels

    with _open_step(config, settings, executor, workers, resumes=True) as step:
        stitch_labels(store, *step)


@app.command(rich_help_panel=MAPS, epilog="Example: wsiseg export slide.zarr -o slide.geojson")
def export(
    store: StorePath,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="A .geojson(.gz), .ome.tiff, .parquet or .png; a folder for masks and coco.",
        ),
    ],
    kind: Annotated[
        ExportFormat | None,
        typer.Option("--format", help="What to write, if the name of --out does not say it."),
    ] = None,
    config: ConfigFile = None,
    settings: Settings = None,
    executor: Executor = "threads",
    workers: Workers = None,
    simplify: Annotated[
        float | None, typer.Option(help="Coarseness of the borders in µm; common ones stay so.")
    ] = None,
    smooth: Annotated[
        int | None, typer.Option(help="How often corners are rounded off; common borders stay so.")
    ] = None,
    min_area: Annotated[
        float | None,
        typer.Option(
            help="Smaller regions (µm²) join the neighbour they touch most; smaller pieces go."
        ),
    ] = None,
    min_hole: Annotated[
        float | None, typer.Option(help="Smaller holes of background (µm²) are filled.")
    ] = None,
    origin: Origin = None,
    max_objects: MaxObjects = None,
    max_vertices: MaxVertices = None,
    max_mb: MaxMb = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            help="Replace what is at --out; of GeoJSON, ours is, edits are kept. In a folder, what "
            "a run wrote there and nobody edited goes; other files stay, and are named."
        ),
    ] = False,
) -> None:
    """Outline a store's regions and write them, or its rasters, for other tools."""
    from wsiseg.export import check_vacant, export_slide, infer_format, note_files
    from wsiseg.outline import outline_regions
    from wsiseg.store import SlideStore

    options = {
        "outline.simplify_um": simplify, "outline.smooth": smooth, "outline.min_area_um2": min_area,
        "outline.min_hole_um2": min_hole, "export.origin": origin,
        "export.max_objects": max_objects, "export.max_vertices": max_vertices,
        "export.max_mb": max_mb,
    }  # fmt: skip
    kind = kind or infer_format(out)
    if not overwrite:
        check_vacant(out, kind)
    with _open_step(config, with_given(settings, options), executor, workers) as step:
        outline, before = partial(outline_regions, store, *step), note_files(out)
        written, notes = export_slide(
            SlideStore(store), outline, out, kind, step.config.export, workers
        )
    for note in (*notes, *(_clear_folder(out, kind, before) if out.is_dir() else ())):
        say(f"{out.name}: {note}")
    say(str(written))


def _clear_folder(out: Path, kind: ExportFormat, before: Mapping[Path, State]) -> tuple[str, ...]:
    """Clear a folder that was written again of what a run had written; name what else is there."""
    from wsiseg.export import describe_left, list_left, list_written
    from wsiseg.run.outputs import clear_earlier

    written = list_written(out, before)
    notes = clear_earlier(out, kind, written)
    return (*notes, *describe_left("it", out, list_left(out, written)))


class _Step(NamedTuple):
    """What every step takes beside its store, in the order in which it takes it."""

    config: Config
    executor: futures.Executor
    progress: Callable[[str, int, int], None]


@contextmanager
def _open_step(
    files: list[Path] | None,
    settings: list[str] | None,
    executor: str,
    workers: int | None,
    *,
    resumes: bool = False,
) -> Iterator[_Step]:
    from wsiseg.compute import open_executor
    from wsiseg.config import Config

    with progress_bars(resumes=resumes) as bars, open_executor(executor, workers) as pool:
        yield _Step(configure(Config, files, settings), pool, bars)
