"""The start of training: new prototypes, or those of a checkpoint and new classes."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from wsiseg.annotations import color_new_class
from wsiseg.config import TrainConfig, parse_config
from wsiseg.errors import ConfigError
from wsiseg.model.checkpoint import load_checkpoint, read_info, trained_state
from wsiseg.model.construct import ConStruct
from wsiseg.train.patches import PatchSource
from wsiseg.train.prototypes import begin_as_images, image_prototypes

__all__ = ["DEFAULTS", "extend_config", "known_classes", "start_from"]

DEFAULTS: dict[str, Any] = {
    "encoder": "lite", "pooling": "smooth", "turns": False, "balance": True, "epochs": 60,
    "batch_size": 32, "contrast_weight": 0.0, "struct_weight": 0.0,
}  # fmt: skip
"""Default settings of `learn`: those of `tissue`, except for the faster of its two encoders alone,
which is as good on tissue like the labels, `balance`, and more epochs, as most folds end early."""


def known_classes(start: str | None) -> tuple[str, ...]:
    """Return the classes of a checkpoint, given by name or path; none without one."""
    return () if start is None else read_info(start).names


def extend_config(
    start: str | None, classes: Sequence[str], settings: Mapping[str, Any]
) -> TrainConfig:
    """Return the settings for the classes `found` in labels and those of the checkpoint `start`.

    The encoder, the preset and everything else that shapes the model come from the checkpoint;
    background classes stay last.

    Raises
    ------
    ConfigError
        If a setting does not fit the checkpoint's weights.
    """
    if start is None:
        return parse_config(
            {**DEFAULTS, **settings, "classes": list(classes)}, TrainConfig, "learn"
        )
    info = read_info(start)
    shape: dict[str, Any] = {
        name: info.config[name]
        for name in (
            *("preset", "encoder", "pooling", "prototypes", "prototypes_per_class"),
            *("guidance_levels", "background", "turns", "mpp", "cam_levels", "cam_overlap"),
        )
        if name in info.config
    }
    changed = [name for name, value in shape.items() if settings.get(name, value) != value]
    if changed:
        raise ConfigError(
            f"{changed[0]} = {settings[changed[0]]!r} does not fit {start}, which has "
            f"{shape[changed[0]]!r}; leave the setting or --from out"
        )
    split = len(info.names) - info.background
    new = [name for name in classes if name not in info.names]
    colors: list[tuple[int, int, int]] = []
    for name in new:  # as the viewer does, so that areas drawn there and the next map look alike
        colors.append(color_new_class(name, [*info.colors, *colors]))

    def insert(old: Sequence[Any], added: Sequence[Any]) -> list[Any]:
        return [*old[:split], *added, *old[split:]]

    plain = {
        **DEFAULTS, **shape, **settings, "classes": insert(info.names, new),
        "prompts": insert(info.prompts, new), "colors": insert(info.colors, colors),
        "encoder_options": {**info.encoder_options, **settings.get("encoder_options", {})},
    }  # fmt: skip
    return parse_config(plain, TrainConfig, f"learn --from {start}")


def start_from(
    start: str | None,
    model: ConStruct,
    patches: PatchSource,
    config: TrainConfig,
    unseen: Container[int] = (),
) -> dict[str, Tensor] | None:
    """Return the tensors that `model` starts from, by name; None if it is initialised in place.

    Classes of the checkpoint keep their prototypes, and its exemplars go along. Prototypes of a new
    class start from the encoder's embeddings of its tiles; those of the numbers `unseen` stay as
    they are in `model`.
    """
    if start is None:
        begin_as_images(model, patches, config, unseen=unseen)
        return None
    former, info = load_checkpoint(start, config.encoder_options)
    state = trained_state(model)
    state |= {name: value for name, value in trained_state(former).items() if name != "prototypes"}
    if former.exemplars is not None:
        kept = dict(zip(info.names, former.exemplars.known.tolist(), strict=True))
        state["exemplars.known"] = torch.tensor([kept.get(name, False) for name in config.classes])
    count = info.prototypes_per_class
    rows = state["prototypes"].view(len(config.classes), count, -1).clone()
    trained = trained_state(former)["prototypes"].view(len(info.names), count, -1)
    for index, name in enumerate(config.classes):
        if name in info.names:
            rows[index] = trained[info.names.index(name)]
        elif index not in unseen:
            rows[index] = image_prototypes(model, patches, index, count, config.seed)
    state["prototypes"] = rows.view_as(state["prototypes"])
    return state
