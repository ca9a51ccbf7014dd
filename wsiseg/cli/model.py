"""Commands about models: list, show, card, calibrate, export and import."""

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

models = typer.Typer(rich_markup_mode=None, help="List, describe, calibrate and convert models.")
app.add_typer(models, name="model", no_args_is_help=True, rich_help_panel=MODELS)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@models.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the named models: those that ship, and those available elsewhere."""
    from wsiseg.cli.model_list import describe_catalog, print_catalog

    if as_json:
        say(json.dumps(describe_catalog(), indent=2, ensure_ascii=False))
    else:
        print_catalog(stdout())


@models.command("show")
def show_model(
    model: Annotated[str, typer.Argument(help="A checkpoint's file, or a name from `model list`.")],
    as_json: AsJson = False,
) -> None:
    """Show what is known about a model: classes, data, labels, scores, limits."""
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
        bool, typer.Option(help="Replace an existing file, even the checkpoint.")
    ] = False,
) -> None:
    """Write a copy of a checkpoint with another card; its tensors stay identical.

    The copy has another hash, so stores predicted with the original are predicted again.
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
        Path, typer.Argument(help="Labelled patches of slides not used in training: CSV or folder.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The copy (.safetensors) to write.")],
    encoder_options: EncoderOptions = None,
    overwrite: Annotated[
        bool, typer.Option(help="Replace an existing file, even the checkpoint.")
    ] = False,
) -> None:
    """Calibrate a checkpoint's confidence on patches of one class each; writes a copy."""
    from wsiseg.model.checkpoint import read_info
    from wsiseg.train import calibrate_checkpoint, load_patches

    with progress_bars() as bars:
        info = read_info(checkpoint)
        classes = info.palette.names
        background = info.names[len(classes) :]
        labelled = load_patches(patches, classes, background=background, to_learn=False)
        written = calibrate_checkpoint(
            checkpoint, labelled, out, overwrite=overwrite, progress=bars,
            encoder_options=read_encoder_options(encoder_options),
        )  # fmt: skip
    say(str(written))


@models.command("export")
def export_model(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint of `wsiseg distill`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file (.onnx) to write.")],
    overwrite: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
) -> None:
    """Export a second stage's network as ONNX, for any batch and image size.

    Its input is RGB in [0, 1], its output each class's probability at every pixel; its metadata
    give the µm/px, the classes and the normalisation.
    """
    from wsiseg.model.onnx import export_onnx
    from wsiseg.model.segment.source import load_segmenter

    say(str(export_onnx(load_segmenter(checkpoint), out, overwrite=overwrite)))


@models.command("import")
def import_model(
    released: Annotated[
        Path, typer.Argument(metavar="FILE", help="best_cam.pth of the released code.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The checkpoint (.safetensors).")],
    classes: Annotated[
        str, typer.Option(help="Class names in the order of the labels, separated by commas.")
    ],
    config: ConfigFile = None,
    settings: Settings = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
) -> None:
    """Convert a checkpoint of the authors' released code, without running code in it.

    Needs the student's weights, from the hub or by `--set encoder_options.weights=PATH`.
    """
    from wsiseg.config import TrainConfig, load_config, parse_config
    from wsiseg.train import RELEASED, import_released

    start = load_config(config, TrainConfig) if config else RELEASED
    plain = override(start.model_dump(), settings, "--set")
    plain["classes"] = [name.strip() for name in classes.split(",")]
    settled = parse_config(plain, TrainConfig, "the command line")
    say(str(import_released(released, out, settled, overwrite=overwrite)))
