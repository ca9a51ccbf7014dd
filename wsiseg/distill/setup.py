"""Set up a run of the second stage: its network, its card, and checks of the settings."""

from __future__ import annotations

from pathlib import Path

import torch

from wsiseg.annotations import choose_colors
from wsiseg.config import DistillConfig, digest_of
from wsiseg.distill.labels import LabelledWindows, choose_least
from wsiseg.errors import ConfigError, DataError
from wsiseg.model.card import Calibration, Card
from wsiseg.model.checkpoint import CheckpointInfo
from wsiseg.model.device import open_device
from wsiseg.model.encoders import keep_portable
from wsiseg.model.segment import SegmentNetwork, begin_network, find_network
from wsiseg.model.segment.source import Segmenter
from wsiseg.train.card import complete_card as add_data
from wsiseg.train.resume import check_out
from wsiseg.train.validate import Validate

__all__ = [
    "BACKGROUND_NAME",
    "check_windows",
    "complete_card",
    "count_steps",
    "describe_distill",
    "describe_info",
    "identify_run",
    "make_network",
    "view_side",
]

_VERSION = 2
"""Version of the computation: raised when the same run gives another result."""

BACKGROUND_NAME = "background"
"""The network's class for the first stage's background."""


def channel_names(windows: LabelledWindows, config: DistillConfig) -> tuple[str, ...]:
    """Return the network's channels: the classes, and background if it is learned."""
    extra = (BACKGROUND_NAME,) if config.background == "learn" else ()
    return (*windows.palette.names, *extra)


def make_network(windows: LabelledWindows, config: DistillConfig) -> SegmentNetwork:
    """Make the untrained network; seeds torch's global generator, which the caller saves."""
    torch.manual_seed(config.seed)
    channels = len(channel_names(windows, config))
    return begin_network(config.network, channels, config.network_options)


def view_side(windows: LabelledWindows, config: DistillConfig) -> int:
    """Return the side of the training views in pixels."""
    return config.window or windows.side


def check_windows(windows: LabelledWindows, config: DistillConfig) -> None:
    """Check that something can be learned from the windows, and that they fit the settings.

    Raises
    ------
    DataError, ConfigError
        If not.
    """
    side, step = view_side(windows, config), find_network(config.network).step
    if side > windows.side:
        raise ConfigError(
            f"window = {side}, but the patches are {windows.side} px a side; use that or less"
        )
    if side % step:
        raise DataError(
            f"the windows are {side} px a side; the network takes multiples of {step}: set window "
            f"to {max(1, side // step) * step}"
        )
    if windows.mpp is None and config.mpp is None:
        raise ConfigError("the µm/px of the patches is unknown; set mpp")
    if BACKGROUND_NAME in windows.palette.names:
        raise ConfigError(
            f"a class is named {BACKGROUND_NAME!r}, which stands for pixels without a class; set "
            f"background to ignore"
        )
    shown = windows.survey.counts[:-1].sum(1) > 0
    if shown.sum() + (config.background == "learn") < 2:
        names = [n for n, s in zip(windows.palette.names, shown, strict=True) if s]
        raise DataError(
            f"the labels show only {', '.join(names) or 'background'}; at least two classes are "
            f"needed"
        )


def count_steps(windows: LabelledWindows, config: DistillConfig) -> int:
    """Count the steps of the whole run."""
    return config.epochs * -(-len(windows) // config.batch_size)


def identify_run(
    windows: LabelledWindows, config: DistillConfig, begun: str, validate: Validate | None
) -> str:
    """Hash everything that decides a run's result; `begun` says where its weights are from."""
    validation = "" if validate is None else validate.identity
    plain = config.model_dump(mode="json", exclude={"device"})
    plain["network_options"] = keep_portable(plain["network_options"])
    return digest_of("distill", _VERSION, plain, windows.identity, begun, validation)


def describe_info(
    windows: LabelledWindows, config: DistillConfig, network: SegmentNetwork, card: Card
) -> CheckpointInfo:
    """Describe the checkpoint."""
    plain = config.model_dump(mode="json")
    plain["network_options"] = keep_portable(plain["network_options"])
    names, colors = channel_names(windows, config), windows.palette.colors
    background = len(names) - len(colors)
    return CheckpointInfo(
        encoder=config.network, identity=network.begun, names=names,
        colors=(*colors, *choose_colors((BACKGROUND_NAME,)))[: len(names)], prompts=(),
        prototypes_per_class=1, mpp=windows.mpp or config.mpp or 0.0,
        tile=windows.tile, config=plain, kind="segmenter",
        first_stage=windows.first_stage, card=card, background=background,
        calibration=((1.0, 0.0),) * len(names) if windows.calibrated else (),
    )  # fmt: skip


def complete_card(card: Card | None, windows: LabelledWindows) -> Card:
    """Return the given card, or an empty one, with gaps filled in from the training data.

    Raises
    ------
    ConfigError
        If the card mentions other classes.
    """
    completed = add_data(card, windows, windows.palette.names)
    stage = ", ".join(f"{name} {value}" for name, value in windows.first_stage.items())
    added: dict[str, object] = {}
    if not completed.labels:
        added["labels"] = f"made by a first stage and not by people: {stage}"
    if completed.calibration is None and windows.calibrated:
        added["calibration"] = Calibration(
            method="learned as the first stage's confidence, which was calibrated",
        )
    return completed.model_copy(update=added)


def describe_distill(
    windows: LabelledWindows,
    config: DistillConfig,
    out: str | Path | None = None,
    *,
    card: Card | None = None,
    validate: Validate | None = None,
    overwrite: bool = False,
) -> dict[str, int | str]:
    """Describe what `distill_model` would do with these arguments; raises the same errors.

    Without `out`, nothing is said of what is already there.
    """
    device = open_device(config.device)
    check_windows(windows, config)
    with torch.random.fork_rng(devices=[]):
        network = make_network(windows, config)
    completed = complete_card(card, windows)
    if validate is not None:
        info = describe_info(windows, config, network, completed)
        validate.check(Segmenter(network, info))
    if out is not None:
        digest = identify_run(windows, config, network.begun, validate)
        check_out(Path(out), digest, completed, overwrite=overwrite)
    counts = windows.survey.counts
    least = choose_least(windows, config)
    used = sum(int(row[limit:].sum()) for row, limit in zip(counts, least, strict=True))
    names = (*windows.palette.names, BACKGROUND_NAME)
    shares = counts.sum(1) / max(1, counts.sum())
    confidence = "calibrated" if windows.calibrated else "the first stage's, not calibrated"
    return {
        "windows": len(windows),
        "window": f"{view_side(windows, config)} px at {windows.mpp or config.mpp:g} µm/px",
        "cases": len(set(windows.cases) - {None}),
        **{f"first stage, {name}": value for name, value in windows.first_stage.items()},
        "labels": ", ".join(
            f"{name} {share:.1%}" for name, share in zip(names, shares, strict=True)
        ),
        "pixels used": f"{used / max(1, counts.sum()):.1%}",
        "confidence": confidence if windows.has_confidence else "none: all pixels count equally",
        "steps": count_steps(windows, config),
        "device": str(device),
        "network": f"{config.network}, body from {network.begun or 'random weights'}",
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }
