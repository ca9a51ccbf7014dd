"""The scale that a model was trained at, and the tiles that follow from it. Loads no torch."""

from __future__ import annotations

from typing import NamedTuple

from wsiseg.config import Config, PredictConfig
from wsiseg.errors import CheckpointError
from wsiseg.model.catalog import find_checkpoint
from wsiseg.model.metadata import read_description

__all__ = ["Scale", "describe_mismatch", "read_scale", "settle_scale"]

_TOLERANCE = 0.2  # of the training scale, before a user is warned


class Scale(NamedTuple):
    """Scale of a model's training patches; None where it does not matter."""

    mpp: float | None
    """µm/px of the patches."""
    tile: int | None
    """Side of the patches, pixels."""


def read_scale(settings: PredictConfig) -> Scale:
    """Return the scale of the checkpoint; with prompts, the window of their encoder.

    Raises
    ------
    CheckpointError
        If the checkpoint is missing or is not one.
    """
    if settings.prompts is not None:
        return Scale(None, settings.prompt_window)
    path = find_checkpoint(settings.checkpoint)
    plain = read_description(path)
    try:
        return Scale(plain["mpp"], plain["tile"])
    except KeyError as error:
        raise CheckpointError(f"{path}: lacks or misnames a field ({error})") from error


def settle_scale(config: Config) -> Config:
    """Fill in the µm/px, tile, stride and block that the settings leave open.

    Raises
    ------
    CheckpointError
        If these depend on a checkpoint that is missing or is not one.
    """
    tile = config.tile
    if None in (tile.mpp, tile.tile):
        scale = read_scale(config.predict)
        tile = tile.model_copy(
            update={"mpp": tile.mpp or scale.mpp, "tile": tile.tile or scale.tile}
        )
    return config.model_copy(update={"tile": tile.model_copy(update=tile.tiling._asdict())})


def describe_mismatch(mpp: float, tile: int, trained: Scale) -> tuple[str, ...]:
    """Return a line for each property of the tiles that is over 20 % off the training patches."""
    return tuple(
        f"its tiles have {given:g} {what}, the checkpoint was trained at {wanted:g}; expect worse "
        f"maps, or set tile.{name} to null to tile at the training scale"
        for name, what, given, wanted in (
            ("mpp", "µm/px", mpp, trained.mpp),
            ("tile", "px a side", tile, trained.tile),
        )
        if wanted is not None and abs(given / wanted - 1) > _TOLERANCE
    )
