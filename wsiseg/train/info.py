"""What identifies a training run, and what its checkpoint says."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from wsiseg.config import TrainConfig
from wsiseg.model.card import Card
from wsiseg.model.checkpoint import CheckpointInfo
from wsiseg.model.construct import ConStruct
from wsiseg.model.encoders import keep_portable
from wsiseg.model.scale import Scale, describe_mismatch
from wsiseg.train.patches import PatchSource
from wsiseg.train.resume import run_digest
from wsiseg.train.setup import describe_classes, rows_per_class
from wsiseg.train.validate import Validate

__all__ = ["identify_run", "make_info"]


def identify_run(
    model: ConStruct,
    patches: PatchSource,
    config: TrainConfig,
    note: str,
    validate: Validate | None,
    start: Mapping[str, Tensor] | None,
) -> str:
    """Hash everything that decides a run's result; of the model, only its frozen weights."""
    validation = "" if validate is None else validate.identity
    identities = [*_identities(model), *_hash_start(start)]
    return run_digest(patches, config, identities, note, validation)


def _identities(model: ConStruct) -> list[str]:
    frozen = (model.encoder, model.teacher)
    return [str(getattr(part, "identity", type(part).__name__)) for part in frozen]


def _hash_start(start: Mapping[str, Tensor] | None) -> list[str]:
    """Hash all tensors into one entry; no entry without tensors."""
    if start is None:
        return []
    digest = hashlib.sha256()
    for name in sorted(start):
        digest.update(name.encode() + start[name].detach().cpu().contiguous().numpy().tobytes())
    return [digest.hexdigest()]


def make_info(
    model: ConStruct, patches: PatchSource, config: TrainConfig, note: str, card: Card,
    *, begun: bool,
) -> CheckpointInfo:  # fmt: skip
    """Describe the checkpoint of a run; with `begun`, it starts from another checkpoint."""
    prompts, palette = describe_classes(config)
    plain = config.model_dump(mode="json")
    for options in ("encoder_options", "teacher_options"):
        plain[options] = keep_portable(plain[options])
    return CheckpointInfo(
        encoder=config.encoder, identity=model.encoder.identity, names=palette.names,
        colors=palette.colors, prompts=prompts, prototypes_per_class=rows_per_class(config),
        mpp=_settle_mpp(patches, config, begun=begun), tile=patches.side, config=plain, note=note,
        preset=config.preset, guidance_levels=model.guidance_levels,
        cam_levels=model.cam_levels if config.cam_levels else None, cam_overlap=config.cam_overlap,
        encoder_options=plain["encoder_options"], weights=_name_weights(model), card=card,
        pooling=config.pooling, background=len(config.background),
    )  # fmt: skip


def _settle_mpp(patches: PatchSource, config: TrainConfig, *, begun: bool) -> float:
    """Return the patches' µm/px, or if that is near and training was `begun`, the checkpoint's.

    So the maps of both lie on the same tiles, and can be compared.
    """
    own, checkpoint = patches.mpp, Scale(config.mpp, None)
    if own is None or (begun and not describe_mismatch(own, patches.side, checkpoint)):
        return config.mpp
    return own


def _name_weights(model: ConStruct) -> dict[str, dict[str, str]]:
    """Source, revision and sha256 of the frozen weights; never their path on this machine."""
    named: dict[str, dict[str, str]] = {}
    for part, frozen in (("encoder", model.encoder), ("teacher", model.teacher)):
        weights: Any = getattr(frozen, "weights", None)
        if weights is not None:
            facts = asdict(weights)
            named[part] = {name: facts[name] for name in ("source", "revision", "sha256")}
    return named
