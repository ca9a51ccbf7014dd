"""Read and check what a checkpoint says about itself, without torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeGuard, get_args

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from wsiseg.config import Pooling, Preset
from wsiseg.errors import CheckpointError, ConfigError
from wsiseg.model.card import Card, check_classes

__all__ = ["FORMAT", "Kind", "check_metadata", "read_card", "read_description"]

FORMAT = 1
"""Version of the layout of a checkpoint."""

Kind = Literal["construct", "segmenter"]
"""What a checkpoint holds: the trained part of a ConStruct, or a whole second-stage network.
Files without this field are of the former."""


def read_description(path: Path) -> dict[str, Any]:
    """Read the fields of a checkpoint's description; those that are present are checked.

    Raises
    ------
    CheckpointError
        If the file is not safetensors, not a checkpoint of this format, or a value is impossible.
    """
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        from wsiseg.model.weights import explain_foreign  # loads torch

        raise CheckpointError(explain_foreign(path, str(error))) from error
    if "wsiseg" not in metadata:
        raise CheckpointError(
            f"{path}: was not written by wsiseg (its metadata lack 'wsiseg'); if its tensors are "
            f"those of the released ConStruct code: wsiseg model import {path} -o NAME.safetensors "
            f"--classes A,B,..."
        )
    try:
        plain: dict[str, Any] = json.loads(metadata["wsiseg"])
        version = plain.pop("format")
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: lacks or misnames a field ({error})") from error
    if version != FORMAT:
        raise CheckpointError(f"{path}: has format {version}, this wsiseg reads {FORMAT}")
    check_metadata(plain, path)
    return plain


def check_metadata(plain: Mapping[str, Any], path: Path) -> None:
    """Refuse a description whose values are impossible; missing fields are not looked for.

    Raises
    ------
    CheckpointError
        If a value is impossible; names `path`, the field and the value.
    """
    for problem in _find_problems(plain):
        raise CheckpointError(f"{path}: {problem}")


def _find_problems(plain: Mapping[str, Any]) -> Iterator[str]:
    kind = plain.get("kind", "construct")
    if kind not in get_args(Kind):
        yield f"kind = {kind!r}: is none of {', '.join(get_args(Kind))}"
    names = plain.get("names", ("any",))
    if not _are_names(names):
        yield f"names = {names!r}: needs one text per class, none empty"
    elif len(set(names)) < len(names):
        duplicate = next(name for name in names if names.count(name) > 1)
        yield f"names = {names!r}: {duplicate!r} appears twice"
    for number, color in enumerate(plain.get("colors", ())):
        if not _is_color(color):
            yield f"colors.{number} = {color!r}: needs red, green and blue as whole numbers 0..255"
    mpp = plain.get("mpp", 1.0)
    if not (_is_number(mpp) and math.isfinite(mpp) and mpp > 0):
        yield f"mpp = {mpp!r}: needs a finite number of µm/px above 0"
    tile = plain.get("tile", 1)
    if not (_is_whole(tile) and tile > 0):
        yield f"tile = {tile!r}: needs a whole number of pixels above 0"
    yield from _find_channel_problems(plain, len(names))
    yield from _find_model_problems(plain, len(names))


def _find_model_problems(plain: Mapping[str, Any], count: int) -> Iterator[str]:
    """Check the fields that say how the model is built."""
    preset, levels = plain.get("preset", "wsiseg"), plain.get("guidance_levels")
    if preset not in get_args(Preset):
        yield f"preset = {preset!r}: is none of {', '.join(get_args(Preset))}"
    if levels is not None and not (_is_list(levels) and levels and all(map(_is_level, levels))):
        yield f"guidance_levels = {levels!r}: needs some of the levels 0, 1, 2 and 3, or null"
    levels, overlap = plain.get("cam_levels"), plain.get("cam_overlap", 1)
    if levels is not None and not (_is_list(levels) and levels and all(map(_is_level, levels))):
        yield f"cam_levels = {levels!r}: needs some of the levels 0, 1, 2 and 3, or null"
    if not (_is_whole(overlap) and overlap in (1, 2)):
        yield f"cam_overlap = {overlap!r}: needs 1 or 2"
    per_class = plain.get("prototypes_per_class", 1)
    if not (_is_whole(per_class) and per_class > 0):
        yield f"prototypes_per_class = {per_class!r}: needs a whole number above 0"
    prompts = plain.get("prompts", ("any",) * count)
    if not (_is_list(prompts) and all(isinstance(prompt, str) for prompt in prompts)):
        yield f"prompts = {prompts!r}: needs one text per class"


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_level(value: object) -> bool:
    return _is_whole(value) and 0 <= value <= 3


def _find_channel_problems(plain: Mapping[str, Any], count: int) -> Iterator[str]:
    """Check the fields about the `count` channels: pooling, background, calibration."""
    pooling, background = plain.get("pooling", "mean"), plain.get("background", 0)
    if pooling not in get_args(Pooling):
        yield f"pooling = {pooling!r}: is none of {', '.join(get_args(Pooling))}"
    if not (_is_whole(background) and 0 <= background < count):
        yield f"background = {background!r}: needs a whole number below that of names, {count}"
    calibration = plain.get("calibration", ())
    if not _are_pairs(calibration) or len(calibration) not in (0, count):
        yield (
            f"calibration = {calibration!r}: needs a scale above 0 and an offset for each of "
            f"{count} names, or nothing"
        )


def _are_pairs(value: object) -> TypeGuard[Sequence[Sequence[float]]]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return False
    return all(
        isinstance(pair, Sequence)
        and len(pair) == 2
        and all(_is_number(part) and math.isfinite(part) for part in pair)
        and pair[0] > 0
        for pair in value
    )


def _are_names(names: object) -> bool:
    if isinstance(names, str) or not isinstance(names, Sequence) or not names:
        return False
    return all(isinstance(name, str) and name.strip() for name in names)


def _is_color(color: object) -> bool:
    if not isinstance(color, Sequence) or len(color) != 3:
        return False
    return all(_is_whole(part) and 0 <= part <= 255 for part in color)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def read_card(plain: object, names: Sequence[str], path: Path) -> Card | None:
    """Parse the card of a description; None if it has none.

    Raises
    ------
    CheckpointError
        If it is not a card, or mentions classes not in `names`; names `path` and the field.
    """
    if plain is None:
        return None
    try:
        card = Card.model_validate(plain)
        check_classes(card, names, f"{path}: card")
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(("card", *map(str, problem["loc"])))
        raise CheckpointError(f"{path}: {where}: {problem['msg']}") from error
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    return card
