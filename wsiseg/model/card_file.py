"""Add to a checkpoint what is known only later: its card, its calibration. Tensors stay as is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from wsiseg.atomic import open_atomic
from wsiseg.errors import ConfigError
from wsiseg.model.card import Card, check_classes
from wsiseg.model.checkpoint import find_checkpoint, read_info

__all__ = ["with_calibration", "with_card"]

_LENGTH = 8  # bytes of the header's length field; the header is padded to a multiple of it


def with_card(
    checkpoint: str | Path, card: Card, out: str | Path, *, overwrite: bool = False
) -> Path:
    """Write a copy of a checkpoint with another card in it.

    The copy is another file with another hash: a store that was predicted with the original is
    predicted anew with it.

    Parameters
    ----------
    checkpoint
        A shipped checkpoint's name, or a file.
    card
        Replaces the checkpoint's own card.
    out
        The ``.safetensors`` file to write.
    overwrite
        Whether `out` may exist already; it may then be the checkpoint itself.

    Raises
    ------
    CheckpointError
        If the checkpoint is missing or is not one.
    ConfigError
        If the card mentions classes that the checkpoint does not have, or `out` exists.
    """
    check_classes(card, read_info(checkpoint).names, "the card")
    return _rewrite(checkpoint, {"card": card.model_dump(mode="json")}, Path(out), overwrite)


def with_calibration(
    checkpoint: str | Path,
    calibration: Sequence[tuple[float, float]],
    out: str | Path,
    *,
    overwrite: bool = False,
) -> Path:
    """Write a copy of a checkpoint with the scale and offset of each name's CAM in it.

    Parameters and errors as in `with_card`; `calibration` is what `fit_calibration` found.

    Raises
    ------
    ConfigError
        If there is not a pair for each name.
    """
    names = read_info(checkpoint).names
    if len(calibration) != len(names):
        raise ConfigError(
            f"{checkpoint}: has {len(names)} names, the calibration has {len(calibration)} pairs"
        )
    pairs = [[float(scale), float(offset)] for scale, offset in calibration]
    return _rewrite(checkpoint, {"calibration": pairs}, Path(out), overwrite)


def _rewrite(
    checkpoint: str | Path, changes: Mapping[str, object], out: Path, overwrite: bool
) -> Path:
    """Write a copy with other metadata."""
    path = find_checkpoint(checkpoint)
    if out.exists() and not overwrite:
        raise ConfigError(f"{out}: already exists; give another name, or say to overwrite it")
    with path.open("rb") as file:
        header = _read_header(file)
        described = json.loads(header["__metadata__"]["wsiseg"])
        described |= changes
        header["__metadata__"]["wsiseg"] = json.dumps(described, sort_keys=True)
        with open_atomic(out) as copy:
            copy.write(_pack_header(header))
            shutil.copyfileobj(file, copy)
    return out


def _read_header(file: BinaryIO) -> dict[str, dict[str, str]]:
    """Read the header of a safetensors file; `file` is then positioned at its tensors."""
    length = int.from_bytes(file.read(_LENGTH), "little")
    header: dict[str, dict[str, str]] = json.loads(file.read(length))
    return header


def _pack_header(header: dict[str, dict[str, str]]) -> bytes:
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH)
    return len(text).to_bytes(_LENGTH, "little") + text
