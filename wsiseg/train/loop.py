"""The training loop: labels in, checkpoint out; the same bits on every run of one machine."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wsiseg.annotations import PALETTES, Palette
from wsiseg.atomic import open_atomic
from wsiseg.compute import Progress
from wsiseg.config import TrainConfig
from wsiseg.errors import ConfigError, DataError
from wsiseg.model.checkpoint import CheckpointInfo, save_checkpoint
from wsiseg.model.construct import ConStruct
from wsiseg.model.encoders import load_encoder, load_teacher
from wsiseg.model.losses import MemoryBank, contrast_loss, cut_regions, region_masks
from wsiseg.model.threads import fixed_threads
from wsiseg.train.features import FrozenFeatures, Seen
from wsiseg.train.patches import Patches

__all__ = ["poly_rate", "train_model"]

PROMPTS = {
    "Tumor": "tumor regions: crowded epithelial cells with large irregular nuclei",
    "Stroma": "stroma regions: pink fibrous connective tissue with spindle nuclei",
    "Immune cells": "lymphocyte regions: small round dark nuclei with little cytoplasm",
    "Necrosis": "necrosis regions: pale structureless debris with ghost cells",
}
"""Texts of the classes that wsiseg knows."""

_THREADS = 1  # fixed, so that sums round alike whatever the machine has
_BANK = 2048


class _Losses(NamedTuple):
    """The loss of one step and its parts, before weighting."""

    total: Tensor
    classes: Tensor
    structure: Tensor
    contrast: Tensor


def train_model(
    patches: Patches,
    config: TrainConfig,
    out: str | Path,
    progress: Progress | None = None,
    *,
    note: str = "",
) -> Path:
    """Train on patch labels and write a checkpoint, with a CSV of the losses beside it.

    Bit-repeatable on one machine: seed, order, augmentation and number of threads are fixed.

    Parameters
    ----------
    patches
        From `load_patches`, with the classes of `config`.
    out
        The ``.safetensors`` file to write; losses go to ``<out>.csv``.
    progress
        Called with ("train", step, steps).
    note
        Kept in the checkpoint and shown to who loads it.

    Returns
    -------
    Path of the checkpoint.

    Raises
    ------
    DataError
        If the labels do not fit the classes, or the patches the encoder.
    ConfigError
        If prompts or colours are given, but not one a class.
    """
    prompts, palette = _describe(config)
    with fixed_threads(_THREADS), torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        encoder = load_encoder(config.encoder)
        teacher = load_teacher(config.encoder) if config.struct_weight else None
        model = ConStruct(
            encoder, prompts, prototypes_per_class=config.prototypes_per_class, teacher=teacher
        )
        _check(patches, config, encoder.level_strides[-1])
        history = _fit(model, patches, config, progress)
    info = CheckpointInfo(
        encoder=config.encoder, identity=encoder.identity, names=palette.names,
        colors=palette.colors, prompts=prompts, prototypes_per_class=config.prototypes_per_class,
        mpp=config.mpp, tile=patches.side, config=config.model_dump(mode="json"), note=note,
    )  # fmt: skip
    path = save_checkpoint(model.eval(), info, out)
    _write_history(path.with_name(path.name + ".csv"), history)
    return path


def poly_rate(step: int, steps: int) -> float:
    """The share of the learning rate at a step: a line from 1 to ``1 / steps`` (construct.md 6)."""
    return 1 - step / steps


def _describe(config: TrainConfig) -> tuple[tuple[str, ...], Palette]:
    """Prompts and palette of the classes; wsiseg's own where none are given."""
    known = PALETTES["bcss"]
    own = dict(zip(known.names, known.colors, strict=True))
    spare = [(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178)]
    colors = config.colors or tuple(
        own.get(name, spare[i % len(spare)]) for i, name in enumerate(config.classes)
    )
    prompts = config.prompts or tuple(
        PROMPTS.get(name, f"{name} regions") for name in config.classes
    )
    for what, given in (("prompts", prompts), ("colors", colors)):
        if len(given) != len(config.classes):
            raise ConfigError(
                f"{what} has {len(given)} entries for {len(config.classes)} classes; "
                f"give one a class, or none"
            )
    return prompts, Palette(config.classes, colors)


def _check(patches: Patches, config: TrainConfig, stride: int) -> None:
    if patches.labels.shape[1] != len(config.classes):
        raise DataError(
            f"the patches are labelled with {patches.labels.shape[1]} classes, the settings name "
            f"{len(config.classes)}: {', '.join(config.classes)}"
        )
    if patches.side % stride:
        raise DataError(
            f"the patches are {patches.side} px a side; encoder {config.encoder!r} needs a "
            f"multiple of {stride}, the nearest is {max(1, round(patches.side / stride)) * stride}"
        )


def _fit(
    model: ConStruct, patches: Patches, config: TrainConfig, progress: Progress | None
) -> list[list[float]]:
    """Train `model` in place; one row a step: learning rate, total loss and its parts."""
    generator = torch.Generator().manual_seed(config.seed)
    bank = MemoryBank(_BANK, model.encoder.embedding_dim, generator)
    source = FrozenFeatures(model.encoder, model.teacher, patches)
    labels = torch.from_numpy(patches.labels)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    steps = config.epochs * -(-len(patches) // config.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: poly_rate(step, steps))
    history: list[list[float]] = []
    model.train()
    for step, batch in enumerate(_batches(len(patches), config, generator)):
        turns = torch.stack(
            [torch.randint(n, (len(batch),), generator=generator) for n in (2, 4)], 1
        )
        losses = _losses(model, source.read(batch, turns), labels[batch], bank, config)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        history.append([optimizer.param_groups[0]["lr"], *(loss.item() for loss in losses)])
        schedule.step()
        if progress is not None:
            progress("train", step + 1, steps)
    return history


def _batches(count: int, config: TrainConfig, generator: torch.Generator) -> Iterator[Tensor]:
    """Patch numbers, shuffled anew every epoch; the last batch of an epoch may be smaller."""
    for _ in range(config.epochs):
        yield from torch.split(torch.randperm(count, generator=generator), config.batch_size)


def _losses(
    model: ConStruct, seen: Seen, labels: Tensor, bank: MemoryBank, config: TrainConfig
) -> _Losses:
    output = model.read_pyramid(seen.pyramid, seen.stages or None)
    zero = output.logits.new_zeros(())
    classes = F.binary_cross_entropy_with_logits(output.logits, labels)
    structure = zero if output.structure_loss is None else output.structure_loss
    contrast = zero
    if config.contrast_weight and labels.any():
        images = F.avg_pool2d(seen.images, config.contrast_shrink)
        contrast = _contrast(model, images, output.cams.detach(), labels, bank)
    total = classes + config.struct_weight * structure + config.contrast_weight * contrast
    return _Losses(total, classes, structure, contrast)


def _contrast(
    model: ConStruct, images: Tensor, cams: Tensor, labels: Tensor, bank: MemoryBank
) -> Tensor:
    _, masks = region_masks(cams, images.shape[2:])
    regions = cut_regions(images, masks, labels, model.encoder.mean)
    foreground, background = (model.encoder.embed_image(part) for part in regions[:2])
    return contrast_loss(foreground, background, regions.labels, model.anchors, bank)


def _write_history(path: Path, history: list[list[float]]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["step", "learning_rate", "total", "classes", "structure", "contrast"])
    table.writerows([step, *(f"{value:.6g}" for value in row)] for step, row in enumerate(history))
    with open_atomic(path) as file:
        file.write(text.getvalue().encode())
