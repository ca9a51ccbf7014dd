"""What a training would do, without doing it."""

from __future__ import annotations

from pathlib import Path

import torch

from wsiseg.config import TrainConfig
from wsiseg.model.card import Card
from wsiseg.model.construct import ConStruct
from wsiseg.model.device import open_device
from wsiseg.model.trained import TrainedModel
from wsiseg.train.card import complete_card
from wsiseg.train.info import identify_run, make_info
from wsiseg.train.patches import PatchSource
from wsiseg.train.resume import check_out, name_unfinished
from wsiseg.train.setup import check_fit, count_steps, describe_distillation, make_model
from wsiseg.train.validate import Validate

__all__ = ["describe_training"]


def describe_training(
    patches: PatchSource,
    config: TrainConfig,
    out: str | Path | None = None,
    *,
    card: Card | None = None,
    validate: Validate | None = None,
    overwrite: bool = False,
) -> dict[str, int | str]:
    """Describe what `train_model` would do with these arguments, without doing it; the same errors.

    Without `out`, nothing is said of what is already there.
    """
    device = open_device(config.device)
    with torch.random.fork_rng(devices=[]):
        model = make_model(config)
    check_fit(patches, config, model.encoder)
    if validate is not None:
        info = make_info(model, patches, config, "", card or Card(), begun=False)
        validate.check(TrainedModel(model, info))
    if out is not None:
        _check_out(model, patches, config, Path(out), card, validate, overwrite)
    counts = model.count_parameters()
    return {
        "patches": len(patches),
        "steps": count_steps(patches, config),
        "device": str(device),
        "distillation": describe_distillation(config, model.encoder),
        **{f"{name} parameters": count for name, count in counts._asdict().items()},
    }


def _check_out(
    model: ConStruct, patches: PatchSource, config: TrainConfig, out: Path,
    card: Card | None, validate: Validate | None, overwrite: bool,
) -> None:  # fmt: skip
    if not out.exists() and not name_unfinished(out).exists():
        return  # so no patch needs to be hashed
    digest = identify_run(model, patches, config, "", validate, None)
    completed = complete_card(card, patches, config.classes)
    check_out(out, digest, completed, overwrite=overwrite)
