"""Commands about models: which there are, what one says of itself, and its card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wsiseg.cli.app import MODELS, app
from wsiseg.cli.consoles import stdout
from wsiseg.cli.options import (
    ConfigFile,
    EncoderOptions,
    Settings,
    override,
    read_encoder_options,
)
from wsiseg.cli.show import progress_bars, say

__all__ = ["calibrate", "card", "export_model", "import_model", "list_models", "show_model"]

models = typer.Typer(
    rich_markup_mode=None, help="What models there are, and what each says of itself."
)
app.add_typer(models, name="model", no_args_is_help=True, rich_help_panel=MODELS)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@models.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the models that have a name: those that ship, and those to be had elsewhere."""
    from wsiseg.cli.model_list import describe_catalog, print_catalog

    if as_json:
        say(json.dumps(describe_catalog(), indent=2, ensure_ascii=False))
    else:
        print_catalog(stdout())


@models.command("show")
def show_model(
    model: Annotated[str, typer.Argument(help="A checkpoint's file, or a name of `model list`.")],
    as_json: AsJson = False,
) -> None:
    """Show what a checkpoint says of itself: classes, data, labels, scores, limits."""
    from wsiseg.cli.model_list import describe_row, print_row
    from wsiseg.model.catalog import find_named

    row = find_named(model)
    if row is None or row.path is not None:
        _show_checkpoint(model, as_json)
    elif as_json:
        say(json.dumps(describe_row(row), indent=2, ensure_ascii=False))
    else:
        print_row(stdout(), row)


def _show_checkpoint(model: str, as_json: bool) -> None:
    from wsiseg.cli.model_page import describe_checkpoint, print_page
    from wsiseg.model.checkpoint import find_checkpoint, read_info

    path, info = find_checkpoint(model), read_info(model)
    if as_json:
        say(json.dumps(describe_checkpoint(path, info), indent=2, ensure_ascii=False))
    else:
        print_page(stdout(), path, info)


@models.command()
def card(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint's file.")],
    written: Annotated[
        Path, typer.Argument(metavar="CARD", help="The card as YAML; see configs/card.yaml.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The copy (.safetensors) to write.")],
    overwrite: Annotated[
        bool, typer.Option(help="Write over a file that is there, even the checkpoint.")
    ] = False,
) -> None:
    """Write a copy of a checkpoint with another card; its tensors stay byte for byte.

    The copy has another hash: a store that was predicted with the original is predicted anew.
    """
    from wsiseg.model.card import load_card
    from wsiseg.model.card_file import with_card
    from wsiseg.model.checkpoint import read_info

    names = read_info(checkpoint).names
    say(str(with_card(checkpoint, load_card(written, names), out, overwrite=overwrite)))


@models.command()
def calibrate(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint's file or name.")],
    patches: Annotated[
        Path, typer.Argument(help="Labelled patches of slides that it never saw: CSV or folder.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The copy (.safetensors) to write.")],
    encoder_options: EncoderOptions = None,
    overwrite: Annotated[
        bool, typer.Option(help="Write over a file that is there, even the checkpoint.")
    ] = False,
) -> None:
    """Fit a checkpoint's confidence on patches of one class each, and write a copy that has it."""
    from wsiseg.model.checkpoint import read_info
    from wsiseg.train import calibrate_checkpoint, load_patches

    with progress_bars() as bars:
        found = load_patches(patches, read_info(checkpoint).names, to_learn=False)
        written = calibrate_checkpoint(
            checkpoint, found, out, overwrite=overwrite, progress=bars,
            encoder_options=read_encoder_options(encoder_options),
        )  # fmt: skip
    say(str(written))


@models.command("export")
def export_model(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint of `wsiseg distill`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file (.onnx) to write.")],
    overwrite: Annotated[bool, typer.Option(help="Write over a file that is there.")] = False,
) -> None:
    """Write a second stage's network as ONNX, any batch and size, for other programs to run.

    It takes RGB in [0, 1] and gives each class's probability at every pixel; its metadata say the
    µm/px, the classes and what is normalised.
    """
    from wsiseg.model.onnx import export_onnx
    from wsiseg.model.segment.source import load_segmenter

    say(str(export_onnx(load_segmenter(checkpoint), out, overwrite=overwrite)))


@models.command("import")
def import_model(
    released: Annotated[
        Path, typer.Argument(metavar="FILE", help="best_cam.pth, as the released code writes it.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The checkpoint (.safetensors).")],
    classes: Annotated[
        str, typer.Option(help="Class names in the order of the labels, with commas between.")
    ],
    config: ConfigFile = None,
    settings: Settings = None,
    overwrite: Annotated[bool, typer.Option(help="Write over a file that is there.")] = False,
) -> None:
    """Make a checkpoint of the authors' released code one of ours; nothing in it is run.

    It needs the student's weights, from the hub or by `--set encoder_options.weights=PATH`.
    """
    from wsiseg.config import TrainConfig, load_config, parse_config
    from wsiseg.train import RELEASED, import_released

    start = load_config(config, TrainConfig) if config else RELEASED
    plain = override(start.model_dump(), settings, "--set")
    plain["classes"] = [name.strip() for name in classes.split(",")]
    settled = parse_config(plain, TrainConfig, "the command line")
    say(str(import_released(released, out, settled, overwrite=overwrite)))
