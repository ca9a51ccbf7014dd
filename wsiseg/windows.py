"""Windows: neighbouring tiles that a model sees together, with a margin of context around them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from wsiseg.geometry import Box
from wsiseg.grid import TileGrid

__all__ = ["Window", "plan_windows"]

_SIDE = 896
"""Largest side of a window's tiles in pixels: the margin then costs little, and memory suffices."""


class Window(NamedTuple):
    """Tiles that a model sees in one image."""

    box: Box
    """Raster pixels of the image; may reach past the raster's edges."""
    tiles: tuple[tuple[int, int], ...]
    """``(row, col)`` of each, row by row."""

    def cell(self, grid: TileGrid, tile: tuple[int, int], stride: int) -> tuple[int, int]:
        """Row and column of a tile's first cell in a CAM of the window, at `stride` px per cell."""
        box = grid.tile_box(*tile)
        return (box.y - self.box.y) // stride, (box.x - self.box.x) // stride


def plan_windows(
    grid: TileGrid, tiles: Iterable[tuple[int, int]], margin: int, stride: int, step: int
) -> Iterator[Window]:
    """Yield windows over `tiles`, each tile in exactly one, in a fixed order.

    Parameters
    ----------
    margin
        Pixels of context around the tiles; a multiple of `stride`.
    stride
        Pixels per CAM cell. Tiles whose corners are not whole cells apart get a window each.
    step
        Sides of windows are rounded up to a multiple of it, to the right and downward.
    """
    count = 1
    if grid.stride % stride == 0 and grid.tile % stride == 0:
        count = max(1, (_SIDE - grid.tile) // grid.stride + 1)
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for row, col in tiles:
        groups.setdefault((row // count, col // count), []).append((row, col))
    for _, group in sorted(groups.items()):
        boxes = [grid.tile_box(*tile) for tile in group]
        x, y = min(box.x for box in boxes), min(box.y for box in boxes)
        right, bottom = max(box.right for box in boxes), max(box.bottom for box in boxes)
        around = Box(x, y, right - x, bottom - y).grow(margin)
        width, height = (-(-side // step) * step for side in around[2:])
        yield Window(Box(around.x, around.y, width, height), tuple(sorted(group)))
