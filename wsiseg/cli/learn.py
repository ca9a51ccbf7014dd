"""Commands that train models and apply them to patches, and the demo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wsiseg.cli.app import MAPS, MODELS, app
from wsiseg.cli.options import (
    CardFile,
    CheckpointOut,
    ConfigFile,
    EncoderOptions,
    NameMap,
    Out,
    Settings,
    Workers,
    configure,
    read_encoder_options,
    with_given,
    with_map,
)
from wsiseg.cli.show import print_facts, print_plan, progress_bars, say

__all__ = ["demo", "masks", "picture", "train"]


@app.command(
    rich_help_panel=MODELS,
    epilog="Example: wsiseg train patches.csv -o model.safetensors --set encoder=lite",
)
def train(
    data: Annotated[
        list[Path],
        typer.Argument(
            help="CSV of patches, a BCSS-WSSS folder, or with --labels stores or folders of stores."
        ),
    ],
    out: CheckpointOut,
    labels: Annotated[
        Path | None,
        typer.Option(help="Labels of tiles in stores: anything that `wsiseg label` reads."),
    ] = None,
    name_map: NameMap = None,
    config: ConfigFile = None,
    settings: Settings = None,
    card: CardFile = None,
    validate: Annotated[
        str | None,
        typer.Option(
            help="Data to choose the best epoch: a folder of patches with masks, a folder or table "
            "with labels, or a share of these patches, such as 0.2, by whole cases.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            help="Only check settings, patches, encoder, device, --out; count parameters, steps."
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option(help="Replace an existing model of other settings or patches.")
    ] = False,
) -> None:
    """Train on patch labels (no masks needed); an interrupted run resumes."""
    from wsiseg.cli.validation import open_validation
    from wsiseg.config import TrainConfig
    from wsiseg.model.card import load_card
    from wsiseg.train import (
        check_settings,
        describe_training,
        leads,
        load_patches,
        load_tiles,
        train_model,
    )
    from wsiseg.train.resume import name_best

    if labels is None and len(data) > 1:
        raise typer.BadParameter("several inputs must be stores, which need --labels")
    with progress_bars(resumes=not dry_run) as bars:
        settled = configure(TrainConfig, config, with_map(settings, name_map, "labels.map"))
        check_settings(settled)
        text = None if card is None else load_card(card, settled.classes)
        patches = (
            load_patches(data[0], settled.classes)
            if labels is None
            else load_tiles(data, labels, settled.classes, settled.labels)
        )
        split = None if validate is None else open_validation(validate, patches, settled)
        used, score = (patches, None) if split is None else (split.patches, split.validate)
        if dry_run:
            facts = describe_training(
                used, settled, out, card=text, validate=score, overwrite=overwrite
            )
        else:
            train_model(used, settled, out, bars, card=text, validate=score, overwrite=overwrite)
    if not leads():
        return
    if dry_run:
        print_plan(facts, "" if split is None else split.held_out)
        return
    if split is not None:
        say(f"best epoch by {split.held_out}: {name_best(out)}")
    say(str(out))


@app.command(
    rich_help_panel=MODELS,
    epilog="Example: wsiseg masks model.safetensors BCSS-WSSS/train -o masks",
)
def masks(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint's path or name, such as tissue.")],
    data: Annotated[
        Path, typer.Argument(help="CSV of patches, a BCSS-WSSS folder, or any folder of images.")
    ],
    out: Out = Path("masks"),
    config: ConfigFile = None,
    settings: Settings = None,
    gate: Annotated[
        str | None,
        typer.Option(help="Gate of the classes: labels, predicted or none; auto if not given."),
    ] = None,
    crf: Annotated[
        bool | None,
        typer.Option("--crf/--no-crf", help="Refine masks along edges in the image or not."),
    ] = None,
    confidence: Annotated[
        bool | None, typer.Option("--confidence", help="Also write each pixel's confidence.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option(help="Replace masks of other settings, but not edited ones.")
    ] = False,
    workers: Workers = None,
) -> None:
    """Write pseudo-masks of patches as PNG; an interrupted run resumes."""
    from wsiseg.compute import open_executor
    from wsiseg.config import MasksConfig
    from wsiseg.masks import write_masks

    given = with_given(settings, {"gate": gate, "refine": crf, "confidence": confidence})
    with progress_bars(resumes=True) as bars, open_executor("threads", workers) as pool:
        rows = write_masks(
            checkpoint, data, out, configure(MasksConfig, config, given),
            overwrite=overwrite, executor=pool, progress=bars,
        )  # fmt: skip
    say(f"{len(rows)} masks in {out / 'mask'}; {out / 'masks.csv'} has a row for each")


@app.command(rich_help_panel=MODELS, epilog="Example: wsiseg picture tissue patch.png -o pictures")
def picture(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint's path or name, such as tissue.")],
    patches: Annotated[list[Path], typer.Argument(help="Patches, or folders of them.")],
    out: Out = Path("pictures"),
    kinds: Annotated[
        list[str] | None,
        typer.Option("--kind", help="cams, prototypes or features; all available if not given."),
    ] = None,
    without: Annotated[
        Path | None,
        typer.Option(help="A checkpoint trained without distillation, to compare its features."),
    ] = None,
    encoder_options: EncoderOptions = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
) -> None:
    """Draw a checkpoint's CAMs, similarity to prototypes, and features by stage for patches."""
    from wsiseg.evaluate import write_figures
    from wsiseg.evaluate.figures import KINDS

    unknown = sorted(set(kinds or ()) - set(KINDS))
    if unknown:
        raise typer.BadParameter(f"--kind {unknown[0]!r} is not one of {', '.join(KINDS)}")
    written = write_figures(
        checkpoint, patches, out, [kind for kind in KINDS if kind in (kinds or ())],
        without=without, device=device,
        encoder_options=read_encoder_options(encoder_options),
    )  # fmt: skip
    for path in written:
        say(str(path))


@app.command(rich_help_panel=MAPS, epilog="Example: wsiseg demo --quick -o demo")
def demo(
    out: Out = Path("demo"),
    quick: Annotated[bool, typer.Option(help="Use small slides, for a check in seconds.")] = False,
    workers: Workers = None,
) -> None:
    """Make two synthetic slides, train on patch labels of one, annotate and score the other."""
    from wsiseg.demo.run import run_demo

    with progress_bars() as bars:
        figures = run_demo(out, quick=quick, workers=workers, progress=bars)
    print_facts(
        {
            name: json.dumps(value) if isinstance(value, dict | list) else value
            for name, value in figures.items()
        }
    )
    say(f"Truth, map and CAMs side by side: {figures['paths']['compare']}")
