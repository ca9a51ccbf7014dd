"""How a slide is divided into tiles and blocks, and stored."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from pydantic import Field

from wsiseg.config.model import Settings

__all__ = ["TileConfig", "Tiling"]


class Tiling(NamedTuple):
    """The tiling of a slide in numbers, as in `TileConfig`."""

    mpp: float
    tile: int
    stride: int
    block: int


_MPP, _TILE, _BLOCK = 0.5, 224, 1792


def _choose_block(unit: int) -> int:
    """Return 1792 if it is a multiple of `unit`, otherwise `unit` times a power of two, as pyramids
    halve whole blocks."""
    if _BLOCK % unit == 0 or unit > 2 * _BLOCK:  # the grid says what is wrong with the latter
        return _BLOCK
    return unit << max(0, (_BLOCK // unit).bit_length() - 1)


class TileConfig(Settings):
    """The tile grid and the tile store."""

    mpp: float | None = Field(default=None, gt=0)
    """Working µm/px. If null, that of the checkpoint's training patches; 0.5 with prompts."""
    mpp_tolerance: float = Field(default=0.02, ge=0, lt=0.5)
    """If a whole multiple of the slide's own µm/px is within this share of `mpp`, it is used
    instead, which is sharper and faster."""
    tile: int | None = Field(default=None, ge=16)
    """Side of a tile in pixels at the working resolution. If null, that of the checkpoint's
    training patches; with prompts `predict.prompt_window`, or 224."""
    stride: int | None = Field(default=None, ge=1)
    """Distance between the corners of tiles in pixels; tiles overlap if it is smaller than `tile`,
    which is the default."""
    block: int | None = Field(default=None, ge=16)
    """Side in pixels of the unit of work and storage: a multiple of `tile` and of `stride`. If
    null, 1792 (eight tiles of 224) if that fits, otherwise their least common multiple times a
    power of 2."""
    codec: Literal["zstd", "lz4", "none"] = "lz4"
    """Lossless compression of a new store's pixels: `lz4` is written and read several times as fast
    as `zstd`, which is some 15 to 25 % smaller. An existing store keeps its own."""

    @property
    def tiling(self) -> Tiling:
        """The numbers, with defaults for null values that no checkpoint determines."""
        mpp = _MPP if self.mpp is None else self.mpp
        tile = self.tile or _TILE
        stride = self.stride or tile
        return Tiling(mpp, tile, stride, self.block or _choose_block(math.lcm(tile, stride)))
