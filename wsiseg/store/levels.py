"""The levels of a store, and the shards that each block of each step writes.

A block writes its part of a coarser level as long as that is worth a file. The coarsest levels have
shards that cover many blocks; otherwise showing one would take hundreds of tiny files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

from wsiseg.geometry import Box
from wsiseg.grid import TileGrid

__all__ = [
    "BlockShards",
    "LevelShards",
    "Levels",
    "Part",
    "Place",
    "Shards",
    "made_by",
    "pyramid_of",
    "step_shards",
    "steps_to",
]

_PYRAMIDS = 4
"""First format in which coarse levels have their own shards."""
_COARSEST = 512
"""Longest side of the coarsest level in pixels, at most."""
_PART = 448
"""Side in pixels from which a block writes its part of a coarser level."""
_SHARD = 4096
"""Side in pixels of the shards of levels that blocks do not write."""
_CHUNK = 512
_COMMANDS = ("tile", "predict", "stitch")
"""The steps with a command of their own: each reads what the one before it made."""
_LEAST = 16
"""Before `_PYRAMIDS`, a block had at least this side in pixels at every image level."""


@dataclass(frozen=True)
class Levels:
    """The levels of one store's image and maps, each identified by its down-sampling factor."""

    grid: TileGrid
    format: int

    @cached_property
    def maps(self) -> tuple[int, ...]:
        """Factors of labels, confidence and probabilities: powers of two.

        Before format 4, only those that divide a block.
        """
        factors, factor = [1], 2
        longest = max(self.grid.height, self.grid.width)
        while longest // factors[-1] > _COARSEST and (self._has_pyramids or self._divides(factor)):
            factors.append(factor)
            factor *= 2
        return tuple(factors)

    @cached_property
    def image(self) -> tuple[int, ...]:
        """Factors of the image: the powers of four among the maps', as scanners write them.

        These take half the files and a quarter of the bytes that powers of two would.
        """
        return tuple(
            factor
            for factor in self.maps[::2]
            if factor == 1 or self._has_pyramids or self.grid.block // factor >= _LEAST
        )

    def by_block(self, factor: int) -> bool:
        """Whether each block writes its part of this level."""
        if factor == 1 or not self._has_pyramids:
            return True
        return self._divides(factor) and self.grid.block // factor >= _PART

    def box(self, factor: int) -> Box:
        """Return the whole raster in pixels of a level."""
        return Box(0, 0, -(-self.grid.width // factor), -(-self.grid.height // factor))

    def shard(self, factor: int) -> int:
        """Return the side in pixels of a level's shards."""
        return self.grid.block // factor if self.by_block(factor) else _SHARD

    def chunk(self, factor: int, limit: int) -> int:
        """Return the side in pixels of a level's chunks; in blocks, a divisor up to `limit`."""
        if not self.by_block(factor):
            return _CHUNK
        side = self.shard(factor)
        return next(length for length in range(min(side, limit), 0, -1) if side % length == 0)

    def places(self, factor: int) -> list[tuple[int, int]]:
        """List ``(row, col)`` of every shard of a level, row-major."""
        side, box = self.shard(factor), self.box(factor)
        rows, cols = -(-box.height // side), -(-box.width // side)
        return [(row, col) for row in range(rows) for col in range(cols)]

    @property
    def _has_pyramids(self) -> bool:
        return self.format >= _PYRAMIDS

    def _divides(self, factor: int) -> bool:
        return self.grid.block % factor == 0


class Place(NamedTuple):
    """One shard."""

    array: str
    row: int
    col: int


class Shards(Protocol):
    """The shards that a step writes: per block, at most one for each of its names."""

    names: tuple[str, ...]
    """Names of what a block writes, in the order of its mark."""

    @property
    def count(self) -> int:
        """Number of blocks."""

    def place(self, name: str, block: int) -> Place:
        """Return the shard that a block writes under `name`."""

    def find(self, place: Place) -> tuple[str, int] | None:
        """Return the name and the block of a shard; None if this step does not write it."""


@dataclass(frozen=True)
class BlockShards:
    """Shards of a step that writes arrays by the grid's blocks; its names are the arrays."""

    names: tuple[str, ...]
    grid: TileGrid

    @property
    def count(self) -> int:
        """See `Shards.count`."""
        return self.grid.n_blocks

    def place(self, name: str, block: int) -> Place:
        """See `Shards.place`."""
        return Place(name, *divmod(block, self.grid.block_cols))

    def find(self, place: Place) -> tuple[str, int] | None:
        """See `Shards.find`."""
        if place.array not in self.names:
            return None
        return place.array, place.row * self.grid.block_cols + place.col


class Part(NamedTuple):
    """One shard of a pyramid's coarse levels, in each of its arrays."""

    level: int
    row: int
    col: int


@dataclass(frozen=True)
class LevelShards:
    """Shards of a step whose blocks are the shards of coarse levels; its names are pyramids."""

    names: tuple[str, ...]
    parts: Sequence[Part]
    """Finer levels first, row-major in each."""

    @property
    def count(self) -> int:
        """See `Shards.count`."""
        return len(self.parts)

    def place(self, name: str, block: int) -> Place:
        """See `Shards.place`."""
        level, row, col = self.parts[block]
        return Place(f"{name}/{level}", row, col)

    def find(self, place: Place) -> tuple[str, int] | None:
        """See `Shards.find`."""
        name, _, level = place.array.rpartition("/")
        if name in self.names and (part := Part(int(level), place.row, place.col)) in self.parts:
            return name, self.parts.index(part)
        return None


def pyramid_of(step: str) -> str:
    """Return the step that writes the coarse levels of what `step` makes."""
    return f"{step}-pyramid"


def made_by(step: str) -> str:
    """Return the command that runs a step; a pyramid belongs to the step before it."""
    return step.removesuffix("-pyramid")


def steps_to(step: str) -> tuple[str, ...]:
    """Return the steps whose results a step is made of, in order, and the step itself."""
    return _COMMANDS[: _COMMANDS.index(step) + 1]


def step_shards(levels: Levels) -> dict[str, BlockShards | LevelShards]:
    """Return the shards of each step, in the order of the steps."""
    maps = ("labels/classes", "labels/confidence", "probabilities")
    cams = ("cams/logits", "cams/classes", "cams/distance")
    return {
        **_pyramid(levels, "tile", ("image",), levels.image),
        "predict": BlockShards(cams, levels.grid),
        **_pyramid(levels, "stitch", maps, levels.maps),
    }


def _pyramid(
    levels: Levels, step: str, names: tuple[str, ...], factors: tuple[int, ...]
) -> dict[str, BlockShards | LevelShards]:
    """Return the shards of a step that writes levels, and of its pyramid step if it has one."""
    own = [level for level, factor in enumerate(factors) if levels.by_block(factor)]
    parts = [
        Part(level, *place)
        for level, factor in enumerate(factors)
        if not levels.by_block(factor)
        for place in levels.places(factor)
    ]
    by_block = tuple(f"{name}/{level}" for name in names for level in own)
    steps: dict[str, BlockShards | LevelShards] = {step: BlockShards(by_block, levels.grid)}
    return steps | ({pyramid_of(step): LevelShards(names, parts)} if parts else {})
