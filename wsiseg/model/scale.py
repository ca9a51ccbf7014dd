"""The scale that a model was taught at, and the tiles that it asks for. Loads no torch."""

from __future__ import annotations

from typing import NamedTuple

from wsiseg.config import Config, PredictConfig
from wsiseg.errors import CheckpointError
from wsiseg.model.catalog import find_checkpoint
from wsiseg.model.metadata import read_description

__all__ = ["Scale", "describe_mismatch", "read_scale", "settle_scale"]

_TOLERANCE = 0.2  # of the training scale, before a user is warned


class Scale(NamedTuple):
    """What a model was taught on; None where it does not matter."""

    mpp: float | None
    """µm/px of the patches."""
    tile: int | None
    """Their side, pixels."""


def read_scale(settings: PredictConfig) -> Scale:
    """The scale of the checkpoint; with prompts, the window in which their encoder looks.

    Raises
    ------
    CheckpointError
        If the checkpoint is missing or is none.
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
    """The settings with numbers for the µm/px, tile, stride and block that they leave open.

    Raises
    ------
    CheckpointError
        If that hangs on a checkpoint which is missing or is none.
    """
    tile = config.tile
    if None in (tile.mpp, tile.tile):
        scale = read_scale(config.predict)
        tile = tile.model_copy(
            update={"mpp": tile.mpp or scale.mpp, "tile": tile.tile or scale.tile}
        )
    return config.model_copy(update={"tile": tile.model_copy(update=tile.tiling._asdict())})


def describe_mismatch(mpp: float, tile: int, taught: Scale) -> tuple[str, ...]:
    """A line for what of the tiles is more than 20 % off the patches that taught the model."""
    return tuple(
        f"its tiles have {given:g} {what}, the checkpoint was trained at {wanted:g}; expect worse "
        f"maps, or set tile.{name} to null to tile at the training scale"
        for name, what, given, wanted in (
            ("mpp", "µm/px", mpp, taught.mpp),
            ("tile", "px a side", tile, taught.tile),
        )
        if wanted is not None and abs(given / wanted - 1) > _TOLERANCE
    )
