"""How a slide is cut into tiles and blocks, and stored."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from pydantic import Field

from wsiseg.config.model import Settings

__all__ = ["TileConfig", "Tiling"]


class Tiling(NamedTuple):
    """How a slide is cut, in numbers; as in `TileConfig`."""

    mpp: float
    tile: int
    stride: int
    block: int


_MPP, _TILE, _BLOCK = 0.5, 224, 1792


def _choose_block(unit: int) -> int:
    """A multiple of `unit`, by a power of two if 1792 is none: pyramids halve whole blocks."""
    if _BLOCK % unit == 0 or unit > 2 * _BLOCK:  # the grid says what is wrong with the latter
        return _BLOCK
    return unit << max(0, (_BLOCK // unit).bit_length() - 1)


class TileConfig(Settings):
    """The tile grid and the tile store."""

    mpp: float | None = Field(default=None, gt=0)
    """Working µm/px. If null, that of the patches that taught the checkpoint; 0.5 with prompts."""
    mpp_tolerance: float = Field(default=0.02, ge=0, lt=0.5)
    """A whole multiple of the slide's own µm/px within this share of `mpp` is used instead of it:
    sharper and faster."""
    tile: int | None = Field(default=None, ge=16)
    """Tile side in pixels at the working resolution. If null, that of the patches that taught the
    checkpoint; with prompts `predict.prompt_window`, or 224."""
    stride: int | None = Field(default=None, ge=1)
    """Distance between tile corners in pixels; smaller than `tile` overlaps. `tile` if null."""
    block: int | None = Field(default=None, ge=16)
    """Side in pixels of the unit of work and storage: a multiple of `tile` and of `stride`. If
    null, 1792 (eight tiles of 224) or the nearest below that is one."""
    codec: Literal["zstd", "lz4", "none"] = "lz4"
    """How a new store packs its pixels, always without loss: `lz4` is written and read several
    times as fast as `zstd`, which is some 15 to 25 % smaller. A store that is there keeps its own.
    """

    @property
    def tiling(self) -> Tiling:
        """The numbers, with wsiseg's own for what is null: what no checkpoint decides."""
        mpp = _MPP if self.mpp is None else self.mpp
        tile = self.tile or _TILE
        stride = self.stride or tile
        return Tiling(mpp, tile, stride, self.block or _choose_block(math.lcm(tile, stride)))
