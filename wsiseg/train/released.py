"""Convert a checkpoint of the authors' released code into one of ours."""

from __future__ import annotations

from pathlib import Path

import torch

from wsiseg.config import TrainConfig
from wsiseg.errors import CheckpointError, ConfigError
from wsiseg.model.checkpoint import CheckpointInfo, save_checkpoint
from wsiseg.model.construct import ConStruct
from wsiseg.model.encoders import keep_portable, load_encoder
from wsiseg.model.released import load_released, read_released
from wsiseg.model.weights import WeightFile, find_weights
from wsiseg.train.setup import describe_classes

__all__ = ["RELEASED", "import_released"]

RELEASED = TrainConfig(preset="reference", encoder="conch", mpp=0.25)
"""Settings of the released checkpoints, as far as a model depends on them."""


def import_released(
    path: str | Path, out: str | Path, config: TrainConfig, *, overwrite: bool = False
) -> Path:
    """Write a ``best_cam.pth`` as a checkpoint that every step and command accepts.

    Parameters
    ----------
    path
        The file as the released code writes it, or its tensors alone.
    config
        Preset `reference`; classes in the order of the labels, µm/px of the training patches, and
        the options of the frozen student (`RELEASED`, with your classes).

    Raises
    ------
    CheckpointError
        If it is not such a file, has another number of classes, or was trained on other weights of
        the student than those that are found.
    ConfigError
        If `out` exists and is not to be overwritten, or the settings are of another preset.
    """
    path, out = Path(path), Path(out)
    if out.exists() and not overwrite:
        raise ConfigError(f"{out}: already exists; give another name, or say to overwrite it")
    prompts, palette = describe_classes(config)
    _check_classes(path, config)
    encoder = load_encoder(config.encoder, **config.encoder_options)
    model = ConStruct(
        encoder,
        torch.zeros(len(prompts), encoder.embedding_dim),
        prototypes_per_class=config.prototypes_per_class,
        preset=config.preset,
        guidance_levels=config.guidance_levels or None,
    )
    load_released(model, path)
    weights: WeightFile | None = getattr(encoder, "weights", None)
    sha256 = find_weights(path, ()).sha256
    plain = config.model_dump(mode="json")
    plain["encoder_options"] = keep_portable(plain["encoder_options"])
    plain["teacher_options"] = keep_portable(plain["teacher_options"])
    info = CheckpointInfo(
        encoder=config.encoder, identity=encoder.identity, names=palette.names,
        colors=palette.colors, prompts=prompts, mpp=config.mpp,
        prototypes_per_class=config.prototypes_per_class,
        tile=getattr(encoder, "image_size", 224), config=plain,
        note=f"imported from {path.name} of the released code (sha256 {sha256[:16]})",
        preset=config.preset, guidance_levels=model.guidance_levels,
        encoder_options=plain["encoder_options"],
        weights={} if weights is None else {"encoder": {
            "source": weights.source, "revision": weights.revision, "sha256": weights.sha256,
        }},
    )  # fmt: skip
    return save_checkpoint(model, info, out)


def _check_classes(path: Path, config: TrainConfig) -> None:
    """Check, before the student is looked for, that the file is one and has as many classes."""
    prototypes = read_released(path).get("prototypes")
    if prototypes is None:
        raise CheckpointError(
            f"{path}: is not a checkpoint of the released ConStruct: it holds no prototypes"
        )
    count, needed = len(prototypes), len(config.classes) * config.prototypes_per_class
    if count != needed:
        raise CheckpointError(
            f"{path}: holds {count} prototypes, one per class; {len(config.classes)} classes are "
            f"named: {', '.join(config.classes)}"
        )
