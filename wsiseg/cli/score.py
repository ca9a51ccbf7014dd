"""The command that scores a checkpoint, masks from any source, or finished maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from wsiseg.cli.app import MODELS, app
from wsiseg.cli.loop import score_slides
from wsiseg.cli.options import ConfigFile, NameMap, Out, Settings, Workers, configure
from wsiseg.cli.show import progress_bars, say

if TYPE_CHECKING:
    from wsiseg.annotations import Palette
    from wsiseg.config import EvaluateConfig
    from wsiseg.evaluate import Evaluation

__all__ = ["evaluate"]

_FOR_ALL = ("out", "config", "settings")
_OPTIONS = {
    "--slides": ("slides", "labels", "name_map"),
    "--predictions": (
        *("checkpoint", "data", "split", "compare", "predictions", "protocol", "classes"),
        *("numbers", "workers"),
    ),
    "a checkpoint": (
        *("checkpoint", "data", "split", "pictures", "compare", "save_labels", "workers"),
    ),
}
"""Parameters by what is scored, beside those for all."""


@app.command(
    rich_help_panel=MODELS,
    epilog="Example: wsiseg evaluate model.safetensors BCSS-WSSS -o evaluation",
)
def evaluate(
    ctx: typer.Context,
    checkpoint: Annotated[
        str | None,
        typer.Argument(help="A checkpoint's path or name; omit it with --predictions."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Argument(help="Folder of img/ and mask/, or of splits (BCSS-WSSS, LUAD)."),
    ] = None,
    out: Out = Path("evaluation"),
    split: Annotated[str, typer.Option(help="Split of the data set: test or valid.")] = "test",
    config: ConfigFile = None,
    settings: Settings = None,
    pictures: Annotated[int, typer.Option(help="Number of patches to draw.", min=0)] = 8,
    compare: Annotated[
        Path | None,
        typer.Option(help="YAML of published scores to show beside ours (configs/published_*)."),
    ] = None,
    save_labels: Annotated[
        bool, typer.Option("--save-labels", help="Write every patch's labels as PNG.")
    ] = False,
    slides: Annotated[
        list[Path] | None,
        typer.Option(help="Score finished maps instead: output folders or stores, on --labels."),
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(help="Labels for --slides, as for `wsiseg label`."),
    ] = None,
    name_map: NameMap = None,
    predictions: Annotated[
        list[Path] | None,
        typer.Option(help="Score a folder of masks instead; with two, also the difference."),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="How --predictions were made: oracle (true classes given) or deploy."),
    ] = None,
    classes: Annotated[
        str,
        typer.Option(help="Classes of --predictions: A,B,C in the order of numbers, or a YAML."),
    ] = "Tumor,Stroma,Immune cells,Necrosis",
    numbers: Annotated[
        str | None,
        typer.Option(
            help="Numbers of --predictions, if not the data's: 1=Tumor,2=Stroma,0=background."
        ),
    ] = None,
    workers: Workers = None,
) -> None:
    """Score a checkpoint or other masks on patches with masks, or maps of slides on labels.

    A checkpoint is scored with and without the true classes of each patch.
    """
    from wsiseg.compute import open_executor
    from wsiseg.config import EvaluateConfig
    from wsiseg.evaluate import (
        evaluate_checkpoint,
        format_comparison,
        format_table,
        load_published,
    )

    if slides or labels:
        if not (slides and labels) or checkpoint or data:
            raise typer.BadParameter("to score maps, give only --slides and --labels")
        _refuse_others(ctx, "--slides")
        score_slides(slides, labels, name_map, config, settings, out)
        return
    if checkpoint is None:
        raise typer.BadParameter("give a checkpoint and patches, or --slides and --labels")
    if predictions:
        data = _only_data(checkpoint, data)
    elif data is None:
        raise typer.BadParameter("give a checkpoint and the folder of the patches")
    _refuse_others(ctx, "--predictions" if predictions else "a checkpoint")
    with progress_bars() as bars, open_executor("threads", workers) as pool:
        settled = configure(EvaluateConfig, config, settings)
        published = () if compare is None else load_published(compare)
        evaluations = (
            _score_masks(
                predictions, data, out, classes, protocol, numbers, settled,
                split=split, executor=pool, progress=bars,
            )
            if predictions
            else evaluate_checkpoint(
                checkpoint, data, settled, out,
                split=split, pictures=pictures, save_labels=save_labels, executor=pool,
                progress=bars,
            )
        )  # fmt: skip
        comparisons = [format_comparison(one, published) for one in evaluations if published]
        comparisons += _differences(evaluations) if predictions else []
    for text in (*map(format_table, evaluations), *comparisons):
        say(text + "\n")


def _refuse_others(ctx: typer.Context, scored: str) -> None:
    """Refuse options that say nothing of what is `scored`, instead of ignoring them."""
    for parameter in ctx.command.params:
        name = str(parameter.name)
        given = ctx.get_parameter_source(name)
        if given and given.name == "COMMANDLINE" and name not in (*_FOR_ALL, *_OPTIONS[scored]):
            raise typer.BadParameter(f"{parameter.opts[0]} does not go with {scored}")


def _only_data(first: str, second: Path | None) -> Path:
    if second is not None:
        raise typer.BadParameter("with --predictions, give only the folder of the patches")
    return Path(first)


def _score_masks(
    folders: Sequence[Path],
    data: Path,
    out: Path,
    classes: str,
    protocol: str | None,
    numbers: str | None,
    config: EvaluateConfig,
    **shared: Any,
) -> list[Evaluation]:
    """Score each folder of masks, and write its report to a folder of the same name."""
    from wsiseg.evaluate import evaluate_predictions, write_report
    from wsiseg.evaluate.patches import find_split
    from wsiseg.evaluate.protocols import Protocol

    if protocol not in get_args(Protocol):
        raise typer.BadParameter(
            "the protocol of --predictions is not known: give --protocol oracle if the true "
            "classes of each patch were used, else --protocol deploy"
        )
    made = cast("Protocol", protocol)
    folders = [
        folder / "mask" if (folder / "masks.json").is_file() else folder for folder in folders
    ]
    names = [_name_report(folder.resolve()) for folder in folders]
    if len(set(names)) < len(names):
        raise typer.BadParameter("--predictions need different names, which their reports get")
    palette = _read_palette(classes)
    mapping = None if numbers is None else _parse_numbers(numbers)
    evaluations = []
    for folder, name in zip(folders, names, strict=True):
        evaluations.append(
            evaluate_predictions(folder, data, palette, made, config, numbers=mapping, **shared)
        )
        write_report(evaluations[-1], None, find_split(data, shared["split"]), out / name)
    return evaluations


def _name_report(folder: Path) -> str:
    """Return the name of a folder of masks; of one that `wsiseg masks` wrote, that of the whole."""
    made = (folder.parent / "masks.json").is_file()
    return folder.parent.name if made and folder.name == "mask" else folder.name


def _read_palette(classes: str) -> Palette:
    """Read a palette from class names or training settings, without background classes."""
    from wsiseg.annotations import Palette
    from wsiseg.config import TrainConfig, load_config, parse_config
    from wsiseg.train.setup import describe_classes

    if classes.endswith((".yaml", ".yml")):
        config = load_config(Path(classes), TrainConfig)
    else:
        names = [name.strip() for name in classes.split(",")]
        config = parse_config({"classes": names}, TrainConfig, "--classes")
    palette = describe_classes(config)[1]
    count = len(palette) - len(config.background)
    return Palette(palette.names[:count], palette.colors[:count])


def _parse_numbers(text: str) -> dict[int, str | None]:
    names: dict[int, str | None] = {}
    for part in text.split(","):
        number, equals, name = (piece.strip() for piece in part.partition("="))
        if not equals or not number.isdecimal() or int(number) in names:
            raise typer.BadParameter(f"--numbers {part!r} needs the form 1=Tumor, each number once")
        names[int(number)] = None if name.casefold() == "background" else name
    return names


def _differences(evaluations: Sequence[Evaluation]) -> list[str]:
    """Compare the first evaluation with each of the others."""
    from wsiseg.evaluate import compare_pair

    lines, first = [], evaluations[0]
    for other in evaluations[1:]:
        difference = compare_pair(first, other)
        lines.append(
            f"{first.predictions} minus {other.predictions}: mIoU {100 * difference.value:+.2f} "
            f"points [{100 * difference.low:+.2f}, {100 * difference.high:+.2f}], p = "
            f"{difference.p:.3g} "
            f"(paired bootstrap over {'cases' if first.cases else 'images'})"
        )
    return lines
