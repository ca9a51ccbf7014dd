"""Set up a run: build the model of the settings, and check that patches and settings fit it."""

from __future__ import annotations

import torch
from torch import Tensor

from wsiseg.annotations import UNSURE, Palette, choose_colors
from wsiseg.config import Prototypes, TrainConfig
from wsiseg.errors import ConfigError, DataError
from wsiseg.model.construct import ConStruct
from wsiseg.model.encoders import (
    Encoder,
    check_options,
    check_teacher,
    default_teacher,
    has_texts,
    load_encoder,
    load_teacher,
)
from wsiseg.train.patches import PatchSource

__all__ = [
    "check_fit",
    "check_settings",
    "count_steps",
    "describe_classes",
    "describe_distillation",
    "guided_levels",
    "make_model",
    "name_teacher",
    "prototype_kind",
    "read_levels",
    "rows_per_class",
]

PROMPTS = {
    "Tumor": "tumor regions: crowded epithelial cells with large irregular nuclei",
    "Stroma": "stroma regions: pink fibrous connective tissue with spindle nuclei",
    "Immune cells": "lymphocyte regions: small round dark nuclei with little cytoplasm",
    "Necrosis": "necrosis regions: pale structureless debris with ghost cells",
}
"""Texts of the classes that wsiseg has texts for."""


def make_model(config: TrainConfig) -> ConStruct:
    """Build the untrained model of `config`, seeded, with its teacher if the loss uses one.

    Preset `wsiseg` has none where it could not change the CAM (`guided_levels`).
    """
    check_settings(config)
    prompts, _ = describe_classes(config)
    torch.manual_seed(config.seed)
    encoder = load_encoder(config.encoder, **config.encoder_options)
    guided = guided_levels(config, encoder)
    teacher = None
    if config.struct_weight and guided:
        teacher = load_teacher(name_teacher(config), **config.teacher_options)
    kind = prototype_kind(config)
    texts: tuple[str, ...] | Tensor = prompts
    if kind == "random":
        noise = torch.randn(len(prompts), encoder.embedding_dim)
        texts = torch.nn.functional.normalize(noise, dim=1)
    elif kind == "images":  # `begin_as_images` fills them in
        texts = torch.zeros(len(prompts), encoder.embedding_dim)
    cam_levels = read_levels(config, encoder)
    _check_overlap(config, encoder, cam_levels)
    return ConStruct(
        encoder,
        texts,
        prototypes_per_class=rows_per_class(config),
        teacher=teacher,
        preset=config.preset,
        guidance_levels=guided or cam_levels,
        cam_levels=cam_levels,
        pooling=config.pooling,
    )


def prototype_kind(config: TrainConfig) -> Prototypes:
    """What prototypes start from, with `auto` resolved."""
    if config.prototypes != "auto":
        return config.prototypes
    return "text" if has_texts(config.encoder) else "images"


def rows_per_class(config: TrainConfig) -> int:
    """Rows of the prototype bank per class."""
    return config.prototypes_per_class * (2 if prototype_kind(config) == "both" else 1)


def read_levels(config: TrainConfig, encoder: Encoder) -> tuple[int, ...]:
    """Pyramid levels that the CAM reads, the finest first."""
    return tuple(sorted(set(config.cam_levels))) or (encoder.cam_level,)


def _check_overlap(config: TrainConfig, encoder: Encoder, cam_levels: tuple[int, ...]) -> None:
    stride = encoder.level_strides[cam_levels[0]]
    if config.cam_overlap > 1 and stride % 4:
        raise ConfigError(
            f"cam_overlap = {config.cam_overlap} shifts images by a quarter cell, but a cell of "
            f"level {cam_levels[0]} of encoder {config.encoder!r} is {stride} px; choose "
            f"cam_levels with a multiple of 4 px (the levels have "
            f"{', '.join(map(str, encoder.level_strides))} px), or set cam_overlap to 1"
        )


def check_settings(config: TrainConfig) -> None:
    """Refuse settings that are wrong in themselves, before patches are read or towers loaded.

    Raises
    ------
    ConfigError
        If prompts, colours or background do not fit the classes, exemplars do not fit the preset or
        the levels, or an option of the encoder is unknown.
    CheckpointError
        If prototypes start from texts, and the tokenizer is missing or another model's.
    """
    check_background(config)
    check_exemplars(config)
    describe_classes(config)
    texts = prototype_kind(config) in ("text", "both")
    check_options(config.encoder, config.encoder_options, texts=texts)
    if config.struct_weight:
        check_teacher(name_teacher(config), config.teacher_options)


def name_teacher(config: TrainConfig) -> str:
    """The teacher of the settings, or the default one of their encoder."""
    return config.teacher or default_teacher(config.encoder)


def guided_levels(config: TrainConfig, encoder: Encoder) -> tuple[int, ...]:
    """Pyramid levels that the teacher guides, those of the settings or the encoder's own.

    An adapter sees the frozen features of its level alone, and CAMs come from `read_levels`:
    guiding another changes no CAM. Presets `reference` and `paper` do so nevertheless, like the
    released code and the paper; `wsiseg` guides levels of the CAM, or none if the settings leave
    them out.
    """
    if config.preset != "wsiseg":
        return config.guidance_levels or encoder.guidance_levels
    cam_levels = read_levels(config, encoder)
    return tuple(level for level in cam_levels if level in (config.guidance_levels or cam_levels))


def describe_distillation(config: TrainConfig, encoder: Encoder) -> str:
    """Describe what the teacher's guidance does to the CAMs."""
    if not config.struct_weight:
        return "off"
    cam_levels = read_levels(config, encoder)
    reached = [str(level) for level in cam_levels if level in guided_levels(config, encoder)]
    if reached:
        return f"guides level {', '.join(reached)}, which the CAM reads"
    own = ", ".join(map(str, cam_levels))
    given = ", ".join(map(str, config.guidance_levels or encoder.guidance_levels))
    teacher = "is left out" if config.preset == "wsiseg" else "trains adapters that no CAM reads"
    return (
        f"changes no CAM: the teacher would guide level {given}, the CAM reads level {own}; it "
        f"{teacher}"
    )


def check_fit(patches: PatchSource, config: TrainConfig, encoder: Encoder) -> None:
    """Refuse patches that classes or encoder do not fit; errors as `train_model`."""
    if patches.labels.shape[1] != len(config.classes):
        raise DataError(
            f"the patches are labelled with {patches.labels.shape[1]} classes, the settings name "
            f"{len(config.classes)}: {', '.join(config.classes)}"
        )
    stride = encoder.level_strides[-1]
    if patches.side % stride:
        raise DataError(
            f"the patches are {patches.side} px a side; encoder {config.encoder!r} needs a "
            f"multiple of {stride}, the nearest is {max(1, round(patches.side / stride)) * stride}"
        )
    size = getattr(encoder, "image_size", None)
    if size is None:
        return
    if patches.side != size:
        raise DataError(
            f"the patches are {patches.side} px a side; encoder {config.encoder!r} was made for "
            f"{size}: resize them, or set encoder_options.image_size where it has one"
        )
    if config.preset == "wsiseg" and config.contrast_weight and config.contrast_shrink > 1:
        raise ConfigError(
            f"contrast_shrink = {config.contrast_shrink} gives regions of "
            f"{size // config.contrast_shrink} px, but encoder {config.encoder!r} takes {size} px "
            f"only; set contrast_shrink to 1"
        )


def count_steps(patches: PatchSource, config: TrainConfig) -> int:
    """Steps of the whole run; the last batch of an epoch may be smaller."""
    return config.epochs * -(-len(patches) // config.batch_size)


def describe_classes(config: TrainConfig) -> tuple[tuple[str, ...], Palette]:
    """Return prompts and palette of the classes; wsiseg's own where none are given."""
    colors = config.colors or choose_colors(config.classes)
    prompts = config.prompts or tuple(
        PROMPTS.get(name, f"{name} regions") for name in config.classes
    )
    if UNSURE in config.classes:
        raise ConfigError(
            f"classes: {UNSURE!r} is wsiseg's name for tissue of no probable class; use another "
            f"name"
        )
    for what, given in (("prompts", prompts), ("colors", colors)):
        if len(given) != len(config.classes):
            raise ConfigError(
                f"{what} has {len(given)} entries for {len(config.classes)} classes; "
                f"give one per class, or none"
            )
    return prompts, Palette(config.classes, colors)


def check_background(config: TrainConfig) -> None:
    """Refuse kinds of background that are not the last classes, or all of them."""
    count = len(config.background)
    if count and (count == len(config.classes) or config.background != config.classes[-count:]):
        raise ConfigError(
            f"background = {list(config.background)} are not the last of the classes "
            f"{list(config.classes)}; put them there, after at least one that is tissue"
        )


def check_exemplars(config: TrainConfig) -> None:
    """Refuse exemplars of a model whose CAM reads several levels, or of another preset."""
    if config.exemplars and (config.preset != "wsiseg" or len(set(config.cam_levels)) > 1):
        raise ConfigError(
            f"exemplars = {config.exemplars} needs preset wsiseg and one CAM level, but preset is "
            f"{config.preset} and cam_levels {list(config.cam_levels)}; set exemplars to 0"
        )
