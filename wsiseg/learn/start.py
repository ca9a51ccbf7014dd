"""What learning starts from: fresh prototypes, or a checkpoint's, with new classes beside them."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

from torch import Tensor

from wsiseg.annotations import KNOWN_COLORS
from wsiseg.config import TrainConfig, parse_config
from wsiseg.errors import ConfigError
from wsiseg.model.checkpoint import load_checkpoint, read_info, trained_state
from wsiseg.model.construct import ConStruct
from wsiseg.train.patches import PatchSource
from wsiseg.train.prototypes import begin_as_images, image_prototypes

__all__ = ["DEFAULTS", "extend_config", "known_classes", "start_from"]

DEFAULTS: dict[str, Any] = {
    "encoder": "small", "pooling": "smooth", "turns": False, "balance": True, "epochs": 60,
    "batch_size": 32, "contrast_weight": 0.0, "struct_weight": 0.0,
}  # fmt: skip
"""Settings of `learn` where nobody says otherwise: those that `tissue` was trained with, but for
`balance` and more epochs, of which most are cut off."""

_SPARE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178))


def known_classes(start: str | None) -> tuple[str, ...]:
    """The classes of a checkpoint's name or path; none without one."""
    return () if start is None else read_info(start).names


def extend_config(
    start: str | None, found: Sequence[str], settings: Mapping[str, Any]
) -> TrainConfig:
    """The settings for the classes `found` in labels, beside those of the checkpoint `start`.

    The encoder, the preset and all that shapes a model are the checkpoint's; kinds of background
    stay last.

    Raises
    ------
    ConfigError
        If a setting would change what the checkpoint's weights are made for.
    """
    if start is None:
        return parse_config({**DEFAULTS, **settings, "classes": list(found)}, TrainConfig, "learn")
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
    new = [name for name in found if name not in info.names]
    colors = [KNOWN_COLORS.get(n, _SPARE[i % len(_SPARE)]) for i, n in enumerate(new)]

    def between(known: Sequence[Any], fresh: Sequence[Any]) -> list[Any]:
        return [*known[:split], *fresh, *known[split:]]

    plain = {
        **DEFAULTS, **shape, **settings, "classes": between(info.names, new),
        "prompts": between(info.prompts, new), "colors": between(info.colors, colors),
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
    """The trained part that `model` is to begin as, by name; None for what it is.

    Prototypes of the checkpoint's classes go on. A class that is new begins as what the encoder
    sees in its tiles, in whose space prototypes lie; of the numbers `unseen`, as it is in `model`.
    """
    if start is None:
        begin_as_images(model, patches, config, unseen=unseen)
        return None
    former, info = load_checkpoint(start, config.encoder_options)
    state = trained_state(model)
    state |= {
        name: value
        for name, value in trained_state(former).items()
        if name != "prototypes" and not name.startswith("familiar.")
    }
    count = info.prototypes_per_class
    rows = state["prototypes"].view(len(config.classes), count, -1).clone()
    known = trained_state(former)["prototypes"].view(len(info.names), count, -1)
    for at, name in enumerate(config.classes):
        if name in info.names:
            rows[at] = known[info.names.index(name)]
        elif at not in unseen:
            rows[at] = image_prototypes(model, patches, at, count, config.seed)
    state["prototypes"] = rows.view_as(state["prototypes"])
    return state
