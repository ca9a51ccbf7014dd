"""Commands of the annotation loop: check labels, learn, suggest, compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsiseg.cli.app import LOOP, app
from wsiseg.cli.options import (
    CheckpointOut,
    ConfigFile,
    Manifest,
    NameMap,
    Out,
    Settings,
    configure,
    override,
    with_map,
)
from wsiseg.cli.show import complain, print_table, progress_bars, say, say_next

if TYPE_CHECKING:
    from wsiseg.config import LabelConfig
    from wsiseg.labels import Labelling

__all__ = ["compare", "label", "learn", "score_slides", "suggest"]


@app.command(rich_help_panel=LOOP, epilog="Example: wsiseg label corrections out")
def label(
    labels: Annotated[
        Path,
        typer.Argument(
            help="GeoJSON, ImageScope or ASAP XML, a CSV (slide,x,y[,width,height],class), or a "
            "folder of these, named like the slides."
        ),
    ],
    slides: Annotated[
        list[Path], typer.Argument(help="Stores, folders of stores, or output folders.")
    ],
    out: Out = Path("labelled"),
    name_map: NameMap = None,
    classes: Annotated[
        str | None, typer.Option(help="Class names, as A,B,C; all in the labels if not given.")
    ] = None,
    manifest: Manifest = None,
    settings: Settings = None,
) -> None:
    """Check label files before training: their contents, and the windows that they label."""
    from wsiseg.labels import label_slides
    from wsiseg.report import write_labels

    config = _configure_labels(settings, name_map)
    wanted = None if classes is None else [name.strip() for name in classes.split(",")]
    labelling = label_slides(labels, slides, wanted, config, manifest=manifest, maps=True)
    written = write_labels(labelling, out)
    _print_labelling(labelling)
    for path in written:
        say(str(path))
    if labelling.problems or labelling.unmatched:
        raise typer.Exit(1)
    given: list[object] = [] if name_map is None else ["--map", name_map]
    given += [] if manifest is None else ["--manifest", manifest]
    for setting in settings or ():
        given += ["--set", f"labels.{setting}"]
    say_next(
        "Learn from them", "learn", *slides, "--labels", labels, *given, "-o", "my.safetensors",
        "--from", "tissue",
    )  # fmt: skip


@app.command(
    rich_help_panel=LOOP,
    epilog="Example: wsiseg learn out --labels corrections -o my.safetensors --from tissue",
)
def learn(
    slides: Annotated[
        list[Path], typer.Argument(help="Output folders, stores, or folders of stores.")
    ],
    labels: Annotated[
        list[Path],
        typer.Option(help="Label files or a folder of them; may be given several times."),
    ],
    out: CheckpointOut,
    start: Annotated[
        str | None,
        typer.Option("--from", help="A checkpoint to continue from, such as tissue."),
    ] = None,
    name_map: NameMap = None,
    manifest: Manifest = None,
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Train on all given labels, and score on held-out slides; an interrupted run resumes."""
    from wsiseg.config import TrainConfig, load_config
    from wsiseg.labels.corrections import CORRECTIONS
    from wsiseg.learn import describe_learned, learn_model

    with progress_bars(resumes=True) as bars:
        given = load_config(config, TrainConfig).model_dump(exclude_unset=True)
        plain = override(given, with_map(settings, name_map, "labels.map"), "--set")
        learned = learn_model(
            slides, labels, out, start=start, manifest=manifest, settings=plain, progress=bars
        )
    columns = ("class", "windows with", "windows without", "held-out precision", "random guess")
    rows = []
    for name, *counts, precision, guess in zip(
        learned.classes, learned.shown, learned.absent, learned.precision, learned.guess,
        strict=True,
    ):  # fmt: skip
        shares = ("" if value != value else f"{value:.3f}" for value in (precision, guess))
        rows.append((name, *counts, *shares))
    print_table(columns, rows)
    for line in describe_learned(learned):
        say(line)
    say(str(out))
    say_next("Map with it", "annotate", "SLIDES", "-o", "OUT", "--set", f"predict.checkpoint={out}")
    if len(slides) == 1 and slides[0] / CORRECTIONS in labels:
        say_next("See your corrections over that map", "view", "OUT", "--earlier", slides[0])


@app.command(rich_help_panel=LOOP, epilog="Example: wsiseg suggest out -n 50 -o suggest")
def suggest(
    slides: Annotated[
        list[Path], typer.Argument(help="Output folders, stores, or folders of stores.")
    ],
    count: Annotated[int, typer.Option("-n", "--count", help="How many places.", min=1)] = 50,
    out: Out = Path("suggest"),
    labels: Annotated[
        list[Path] | None, typer.Option(help="Existing labels, whose places are left out.")
    ] = None,
    per_slide: Annotated[
        int | None,
        typer.Option(help="At most this many per slide; twice the even share if not given.", min=1),
    ] = None,
) -> None:
    """Suggest places to label next, unsure and diverse, as frames for `view` and QuPath."""
    from wsiseg.suggest import suggest_places, write_suggestions

    with progress_bars() as bars:
        places = suggest_places(slides, count, labels or (), per_slide=per_slide, progress=bars)
        written = write_suggestions(places, out)
    if len(places) < count:
        say(f"only {len(places)} places are available within --per-slide")
    for path in written:
        say(str(path))
    if len(slides) == 1:
        say_next("Label them in the browser", "view", slides[0], "--suggest", out)


@app.command(rich_help_panel=LOOP, epilog="Example: wsiseg compare out1 out2 -o changes")
def compare(
    before: Annotated[Path, typer.Argument(help="Output folder of a run.")],
    after: Annotated[Path, typer.Argument(help="Output folder of another run on its slides.")],
    out: Out = Path("compare"),
) -> None:
    """Show how much tissue changed its class between two runs, per slide and class, and where."""
    from wsiseg.report import compare_runs, format_changes, write_changes

    with progress_bars() as bars:
        changes = compare_runs(before, after, bars)
        written = write_changes(changes, out)
    say(format_changes(changes))
    for path in written:
        say(str(path))
    say_next("Choose what to label next", "suggest", after, "-n", 20, "-o", "suggest")


def score_slides(
    slides: list[Path], labels: list[Path], name_map: str | None, files: list[Path] | None,
    settings: list[str] | None, out: Path,
) -> None:  # fmt: skip
    """Score finished maps on labels, for `evaluate --slides`."""
    from wsiseg.evaluate import describe_slides, evaluate_slides, format_slides, write_slides
    from wsiseg.run import OutputTree, show_agreement

    with progress_bars() as bars:
        config = _configure_labels(settings, name_map, files)
        scores = evaluate_slides(slides, labels, config=config, progress=bars)
        written = write_slides(scores, out)
        run = OutputTree(slides[0])
        if len(slides) == 1 and run.is_one():
            written.append(show_agreement(run, describe_slides(scores)))
    say(format_slides(scores))
    for path in written:
        say(str(path))


def _configure_labels(
    settings: list[str] | None, name_map: str | None, files: list[Path] | None = None
) -> LabelConfig:
    from wsiseg.config import LabelConfig

    return configure(LabelConfig, files, with_map(settings, name_map, "map"))


def _print_labelling(labelling: Labelling) -> None:
    """Print the table of slides and classes, then notes and problems."""
    from wsiseg.report.labelled import COLUMNS, describe_labels

    print_table(COLUMNS, (tuple(row.values()) for row in describe_labels(labelling)))
    for note in (*labelling.notes, *labelling.advise()):
        say(note)
    if labelling.unlabelled:
        say(f"not labelled: {', '.join(path.stem for path in labelling.unlabelled)}")
    for problem in (*labelling.unmatched, *labelling.problems):
        complain(problem)
