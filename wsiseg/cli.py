"""The command line: each command is its options and one call."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from wsiseg import __version__
from wsiseg.config import Config, load_config, parse_config
from wsiseg.errors import WsisegError

if TYPE_CHECKING:
    from wsiseg.annotate import Job, SlideResult

__all__ = ["app"]

app = typer.Typer(
    help="Tissue maps of whole slides from patch labels, as polygons for QuPath.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_out = Console()
_err = Console(stderr=True)

Inputs = Annotated[list[Path], typer.Argument(help="Slides, folders of slides, or CSV manifests.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Output folder.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML settings; see `wsiseg config`.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="One setting, as stitch.refine=false.")
]
MppOverride = Annotated[
    float | None, typer.Option(help="Level-0 µm/px to use instead of the metadata.")
]
Executor = Annotated[
    str, typer.Option(help="serial, threads, processes, dask, or a scheduler's tcp://HOST:PORT.")
]
Workers = Annotated[int | None, typer.Option(help="Workers; the number of cores if not given.")]
StorePath = Annotated[Path, typer.Argument(help="A slide's .zarr store.")]


@contextmanager
def _errors() -> Iterator[None]:
    """Show an error of ours as one line, and exit with 1."""
    try:
        yield
    except WsisegError as error:
        _complain(f"error: {error}")
        raise typer.Exit(1) from error


def _configure(path: Path | None, settings: list[str] | None, mpp: float | None) -> Config:
    data = load_config(path, Config).model_dump()
    _override(data, settings, "--set")
    if mpp is not None:
        data["slide"]["mpp_override"] = mpp
    return parse_config(data, Config, "the command line")


def _override(data: dict[str, Any], settings: list[str] | None, option: str) -> dict[str, Any]:
    """Put each ``step.name=value`` of the command line into `data`."""
    for setting in settings or []:
        name, equals, value = setting.partition("=")
        if not equals:
            raise typer.BadParameter(f"{option} {setting!r} needs the form name=value")
        *parents, leaf = name.split(".")
        target = data
        for parent in parents:
            target = target.setdefault(parent, {})
        target[leaf] = yaml.safe_load(value)
    return data


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """Progress bars with rate and time left on standard error; nothing if it is no terminal."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=_err, disable=not _err.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def report(step: str, done: int, total: int) -> None:
            if done >= total:  # a batch has thousands of steps: what is finished leaves the screen
                if step in tasks:
                    bars.remove_task(tasks.pop(step))
                return
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total, rate="")
            speed = bars.tasks[bars.task_ids.index(tasks[step])].speed
            rate = f"{speed:.1f}/s" if speed else ""
            bars.update(tasks[step], completed=done, total=total, rate=rate)

        yield report


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        _out.print(__version__)
        raise typer.Exit


@app.command()
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
) -> None:
    """Tile, segment, stitch and outline slides; resumes what was interrupted."""
    from wsiseg.annotate import annotate as run

    with _errors(), _bars() as bars:

        def report(job: Job, step: str, done: int, total: int) -> None:
            bars(step if step == "slides" else f"{escape(job.name)}: {step}", done, total)

        results = run(
            inputs, out, _configure(config, settings, mpp_override), executor=executor,
            workers=workers, nested=nested, overwrite=overwrite, dry_run=dry_run, progress=report,
        )  # fmt: skip
    _print_results(results)
    if any(result.status == "failed" for result in results):
        raise typer.Exit(1)


@app.command()
def tile(
    slide: Annotated[Path, typer.Argument(help="A slide.")],
    store: Annotated[Path, typer.Option("--out", "-o", help="The .zarr store to write.")],
    config: ConfigFile = None,
    settings: Settings = None,
    mpp_override: MppOverride = None,
    executor: Executor = "threads",
    workers: Workers = None,
    tissue: Annotated[
        Path | None,
        typer.Option(help="GeoJSON of the tissue outline: written, or read if you changed it."),
    ] = None,
) -> None:
    """Find the tissue of one slide and stream its tiles into a Zarr store."""
    from wsiseg.compute import open_executor
    from wsiseg.tile import tile_slide

    with _errors(), _bars() as bars, open_executor(executor, workers) as pool:
        settled = _configure(config, settings, mpp_override)
        tile_slide(slide, store, settled, pool, bars, tissue=tissue)


@app.command()
def predict(
    store: StorePath,
    config: ConfigFile = None,
    settings: Settings = None,
    executor: Executor = "threads",
    workers: Workers = None,
) -> None:
    """Run the model over a store's tiles and keep the CAMs in it."""
    from wsiseg.compute import open_executor
    from wsiseg.predict import predict_tiles

    with _errors(), _bars() as bars, open_executor(executor, workers) as pool:
        predict_tiles(store, _configure(config, settings, None), pool, bars)


@app.command()
def stitch(
    store: StorePath,
    config: ConfigFile = None,
    settings: Settings = None,
    executor: Executor = "threads",
    workers: Workers = None,
) -> None:
    """Blend a store's CAMs into label and confidence rasters."""
    from wsiseg.compute import open_executor
    from wsiseg.stitch import stitch_labels

    with _errors(), _bars() as bars, open_executor(executor, workers) as pool:
        stitch_labels(store, _configure(config, settings, None), pool, bars)


@app.command()
def export(
    store: StorePath,
    out: Annotated[Path, typer.Option("--out", "-o", help="The .geojson(.gz) file to write.")],
    config: ConfigFile = None,
    settings: Settings = None,
    executor: Executor = "threads",
    workers: Workers = None,
) -> None:
    """Outline a store's regions and write them as GeoJSON."""
    from wsiseg.compute import open_executor
    from wsiseg.outline import outline_regions
    from wsiseg.qupath import write_geojson

    with _errors(), _bars() as bars, open_executor(executor, workers) as pool:
        annotations = outline_regions(store, _configure(config, settings, None), pool, bars)
        write_geojson(annotations, out)
    _say(f"{out}: {len(annotations.regions)} regions")


@app.command()
def info(
    slide: Annotated[Path, typer.Argument(help="A slide.")], mpp_override: MppOverride = None
) -> None:
    """Show what is known about one slide."""
    from wsiseg.config import SlideConfig
    from wsiseg.slide import open_slide

    with _errors(), open_slide(slide, SlideConfig(mpp_override=mpp_override)) as opened:
        facts = {
            "reader": opened.reader,
            "vendor": opened.vendor,
            "size": f"{opened.size.width} x {opened.size.height} px",
            "mpp": f"{opened.mpp.x:g} x {opened.mpp.y:g} ({opened.mpp_source})",
            "bounds": "x {} y {} width {} height {}".format(*opened.bounds),
            "levels": ", ".join(f"{s.width} x {s.height}" for s in opened.level_sizes),
            "associated images": ", ".join(opened.associated) or "none",
        }
    _print_facts(facts)


@app.command()
def lint(
    files: Annotated[list[Path], typer.Argument(help="GeoJSON files, ours or others'.")],
) -> None:
    """Check GeoJSON files against every rule that QuPath's importer has."""
    from wsiseg.qupath import lint_geojson

    failed = False
    with _errors():
        for file in files:
            findings = lint_geojson(file)
            failed |= any(finding.severity == "error" for finding in findings)
            for finding in findings:
                _say(f"{file}: {finding}")
            if not findings:
                _say(f"{file}: clean")
    if failed:
        raise typer.Exit(1)


@app.command("config")
def show_config(config: ConfigFile = None, settings: Settings = None) -> None:
    """Print the resolved settings as YAML."""
    with _errors():
        resolved = _configure(config, settings, None).model_dump(mode="json")
    sys.stdout.write(yaml.safe_dump(resolved, sort_keys=False))


@app.command()
def train(
    patches: Annotated[Path, typer.Argument(help="CSV of patches, or a BCSS-WSSS folder.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The checkpoint (.safetensors) to write.")
    ],
    config: ConfigFile = None,
    settings: Settings = None,
    dry_run: Annotated[
        bool, typer.Option(help="Check everything and count parameters and steps, no more.")
    ] = False,
) -> None:
    """Train on patch labels (no masks needed); resumes what was interrupted."""
    from wsiseg.config import TrainConfig
    from wsiseg.train import describe_training, load_patches, train_model

    with _errors(), _bars() as bars:
        data = _override(load_config(config, TrainConfig).model_dump(), settings, "--set")
        settled = parse_config(data, TrainConfig, "the command line")
        found = load_patches(patches, settled.classes)
        if dry_run:
            facts = describe_training(found, settled)
        else:
            train_model(found, settled, out, bars)
    if dry_run:
        _print_facts({name: f"{count:,}" for name, count in facts.items()})
    else:
        _say(str(out))


@app.command()
def evaluate(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint's path, or tiny.")],
    data: Annotated[
        Path, typer.Argument(help="Folder of img/ and mask/, or of splits (BCSS-WSSS, LUAD).")
    ],
    out: Out = Path("evaluation"),
    split: Annotated[str, typer.Option(help="Split of the data set: test or valid.")] = "test",
    config: ConfigFile = None,
    settings: Settings = None,
    encoder_options: Annotated[
        list[str] | None,
        typer.Option("--encoder", help="Where the encoder is, as weights=PATH, if not on the hub."),
    ] = None,
    pictures: Annotated[int, typer.Option(help="Patches drawn.", min=0)] = 8,
    labels: Annotated[bool, typer.Option(help="Write every patch's labels as PNG.")] = False,
    workers: Workers = None,
) -> None:
    """Score a checkpoint on patches with masks, with and without the true classes given."""
    from wsiseg.compute import open_executor
    from wsiseg.config import EvaluateConfig
    from wsiseg.evaluate import evaluate_checkpoint, format_table

    with _errors(), _bars() as bars, open_executor("threads", workers) as pool:
        settled = _override(load_config(config, EvaluateConfig).model_dump(), settings, "--set")
        evaluations = evaluate_checkpoint(
            checkpoint, data, parse_config(settled, EvaluateConfig, "the command line"), out,
            split=split, pictures=pictures, save_labels=labels, executor=pool, progress=bars,
            encoder_options=_override({}, encoder_options, "--encoder"),
        )  # fmt: skip
    for evaluation in evaluations:
        _say(format_table(evaluation) + "\n")


@app.command()
def demo(
    out: Out = Path("demo"),
    quick: Annotated[bool, typer.Option(help="Small slides, for a check in seconds.")] = False,
    workers: Workers = None,
) -> None:
    """Make two synthetic slides, train on patch labels of one, annotate and score the other."""
    from wsiseg.demo.run import run_demo

    with _errors(), _bars() as bars:
        figures = run_demo(out, quick=quick, workers=workers, progress=bars)
    _print_facts(
        {
            name: json.dumps(value) if isinstance(value, dict | list) else value
            for name, value in figures.items()
        }
    )


@app.command()
def doctor() -> None:
    """Say what is installed, what is missing, and what to do about it."""
    from wsiseg.doctor import check_installation

    table = Table("part", "found", "what to do")
    for row in check_installation():
        table.add_row(*map(escape, row))
    _out.print(table)


def _say(text: str) -> None:
    """A line as it is: names may hold brackets, and a path must not be broken."""
    _out.print(text, markup=False, highlight=False, soft_wrap=True)


def _complain(text: str) -> None:
    _err.print(text, style="red", markup=False, highlight=False, soft_wrap=True)


def _print_facts(facts: dict[str, Any]) -> None:
    table = Table(show_header=False, box=None)
    for name, value in facts.items():
        table.add_row(name, escape(str(value)))
    _out.print(table)


def _print_results(results: list[SlideResult]) -> None:
    table = Table("slide", "status", "mpp", "tiles", "seconds", "tissue mm²")
    for result in results:
        table.add_row(
            escape(result.slide), result.status, f"{result.mpp:g}" if result.mpp else "",
            str(result.tiles), f"{result.seconds:.1f}", f"{result.tissue_mm2:.2f}",
        )  # fmt: skip
    _out.print(table)
    for result in results:
        if result.error:
            _complain(f"failed: {result.error}")
