"""TileGrid: the layout of a raster's tiles and blocks. Geometry only, no pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from wsiseg.errors import GeometryError
from wsiseg.geometry import Box

__all__ = ["TileGrid"]


@dataclass(frozen=True)
class TileGrid:
    """Tiles of `tile` px every `stride` px over a raster, owned by square blocks of `block` px.

    Tile ``(row, col)`` has its corner at ``(col * stride, row * stride)``; the last row and column
    may reach past the raster, where pixels are white. A tile belongs to the block that contains its
    corner, so every tile has one owner. Blocks partition the raster.

    Raises
    ------
    GeometryError
        If a length is not positive, ``stride > tile``, or `block` is not a multiple of both.
    """

    height: int
    width: int
    tile: int
    stride: int
    block: int

    def __post_init__(self) -> None:
        for name in ("height", "width", "tile", "stride", "block"):
            if getattr(self, name) < 1:
                raise GeometryError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.stride > self.tile:
            raise GeometryError(
                f"stride {self.stride} leaves gaps between tiles of {self.tile} px; "
                f"use a stride of at most {self.tile}"
            )
        if self.block % self.tile or self.block % self.stride:
            raise GeometryError(
                f"block {self.block} is no multiple of tile {self.tile} and stride {self.stride}; "
                f"the next larger one that works is {self._fitting_block()}"
            )

    def _fitting_block(self) -> int:
        unit = math.lcm(self.tile, self.stride)
        return -(-self.block // unit) * unit

    @property
    def box(self) -> Box:
        """The whole raster."""
        return Box(0, 0, self.width, self.height)

    @property
    def rows(self) -> int:
        """Number of tile rows."""
        return 1 + max(0, -(-(self.height - self.tile) // self.stride))

    @property
    def cols(self) -> int:
        """Number of tile columns."""
        return 1 + max(0, -(-(self.width - self.tile) // self.stride))

    @property
    def block_rows(self) -> int:
        """Number of block rows."""
        return -(-self.height // self.block)

    @property
    def block_cols(self) -> int:
        """Number of block columns."""
        return -(-self.width // self.block)

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return self.block_rows * self.block_cols

    @property
    def tiles_per_block(self) -> int:
        """Number of tiles along one side of a whole block."""
        return self.block // self.stride

    def tile_box(self, row: int, col: int) -> Box:
        """Return the window of a tile; it may reach past the raster's right and bottom edges."""
        return Box(col * self.stride, row * self.stride, self.tile, self.tile)

    def block_box(self, index: int) -> Box:
        """Return the square of a block (row-major index), clipped to the raster."""
        if not 0 <= index < self.n_blocks:
            raise GeometryError(f"block {index} does not exist; the grid has {self.n_blocks}")
        row, col = divmod(index, self.block_cols)
        square = Box(col * self.block, row * self.block, self.block, self.block)
        return square.intersect(self.box)

    def block_tiles(self, index: int) -> Iterator[tuple[int, int]]:
        """Yield ``(row, col)`` of the tiles that a block owns, row-major."""
        block_row, block_col = divmod(index, self.block_cols)
        n = self.tiles_per_block
        for row in range(block_row * n, min(self.rows, (block_row + 1) * n)):
            for col in range(block_col * n, min(self.cols, (block_col + 1) * n)):
                yield row, col

    def blocks_touching(self, box: Box) -> Iterator[int]:
        """Yield the index of every block that shares a pixel with `box`, in order."""
        inside = box.intersect(self.box)
        if inside.empty:
            return
        for row in range(inside.y // self.block, (inside.bottom - 1) // self.block + 1):
            for col in range(inside.x // self.block, (inside.right - 1) // self.block + 1):
                yield row * self.block_cols + col

    def owner(self, row: int, col: int) -> int:
        """Return the index of the block that owns a tile."""
        return row // self.tiles_per_block * self.block_cols + col // self.tiles_per_block

    def touching(self, box: Box) -> Iterator[tuple[int, int]]:
        """Yield ``(row, col)`` of every tile that shares a pixel with `box`, row-major."""
        if box.empty:
            return
        first_row = max(0, (box.y - self.tile) // self.stride + 1)
        first_col = max(0, (box.x - self.tile) // self.stride + 1)
        last_row = min(self.rows - 1, (box.bottom - 1) // self.stride)
        last_col = min(self.cols - 1, (box.right - 1) // self.stride)
        for row in range(first_row, last_row + 1):
            for col in range(first_col, last_col + 1):
                yield row, col
