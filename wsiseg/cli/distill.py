"""The command that trains a second stage on the labels of a first stage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsiseg.cli.app import MODELS, app
from wsiseg.cli.options import CardFile, CheckpointOut, ConfigFile, Settings, configure
from wsiseg.cli.show import print_plan, progress_bars, say

if TYPE_CHECKING:
    from wsiseg.config import DistillConfig
    from wsiseg.distill import LabelledWindows
    from wsiseg.train import Validate

__all__ = ["distill"]


@app.command(
    rich_help_panel=MODELS,
    epilog="Example: wsiseg distill out/slides -o fast.safetensors",
)
def distill(
    data: Annotated[
        list[Path],
        typer.Argument(
            help="Finished stores or folders of them; with --masks, the patches of the masks."
        ),
    ],
    out: CheckpointOut,
    masks: Annotated[
        Path | None, typer.Option(help="Pseudo-masks of the patches, from `wsiseg masks`.")
    ] = None,
    config: ConfigFile = None,
    settings: Settings = None,
    card: CardFile = None,
    validate: Annotated[
        str | None,
        typer.Option(
            help="Data to choose the best epoch: a folder of patches with masks, a folder or table "
            "with labels, or a share of these windows, such as 0.2, by whole cases.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            help="Only check settings, labels, weights, device and --out, and count steps."
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option(help="Replace an existing model of other settings or labels.")
    ] = False,
) -> None:
    """Train a fast network on a model's labels; an interrupted run resumes."""
    from wsiseg.config import DistillConfig
    from wsiseg.distill import describe_distill, distill_model, load_masks, load_stores
    from wsiseg.model.card import load_card
    from wsiseg.train.resume import name_best

    if masks is not None and len(data) > 1:
        raise typer.BadParameter("--masks belong to one folder or table of patches; give one input")
    with progress_bars(resumes=not dry_run) as bars:
        settled = configure(DistillConfig, config, settings)
        windows = (
            load_stores(data, settled.window)
            if masks is None
            else load_masks(masks, data[0], mpp=settled.mpp)
        )
        text = None if card is None else load_card(card, windows.palette.names)
        used, score, held_out = _open_validation(validate, windows, settled)
        if dry_run:
            facts = describe_distill(
                used, settled, out, card=text, validate=score, overwrite=overwrite
            )
            print_plan(facts, held_out)
            return
        distill_model(used, settled, out, bars, card=text, validate=score, overwrite=overwrite)
    if held_out:
        say(f"best epoch by {held_out}: {name_best(out)}")
    say(str(out))


def _open_validation(
    given: str | None, windows: LabelledWindows, config: DistillConfig
) -> tuple[LabelledWindows, Validate | None, str]:
    """Return the training windows, the score that chooses the epoch, and what is held out."""
    from wsiseg.cli.validation import count_cases, open_other, read_share
    from wsiseg.distill import Agreement, choose_least
    from wsiseg.train import hold_out

    if given is None:
        return windows, None, ""
    names = windows.palette.names
    if Path(given).exists():
        validate, held_out = open_other(Path(given), names, names)
        return windows, validate, held_out
    kept, out = hold_out(windows, read_share(given), names, config.seed)
    least = tuple(choose_least(windows, config).tolist())
    validate = Agreement(windows.pick(out.which), least)
    return windows.pick(kept.which), validate, f"{len(out)} windows of {count_cases(out.cases)}"
