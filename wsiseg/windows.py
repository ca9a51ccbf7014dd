"""Neighbouring tiles taken in one look, with a margin: what lies around them decides as well."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from wsiseg.geometry import Box
from wsiseg.grid import TileGrid

__all__ = ["Window", "plan_windows"]

_SIDE = 896
"""Pixels that a window's tiles may span: the margin is a small part of it, and memory is too."""


class Window(NamedTuple):
    """Tiles of one look."""

    box: Box
    """Raster pixels looked at; may reach past the raster's edges."""
    tiles: tuple[tuple[int, int], ...]
    """``(row, col)`` of each, row by row."""

    def cell(self, grid: TileGrid, tile: tuple[int, int], stride: int) -> tuple[int, int]:
        """Row and column of a tile's first cell in a CAM of the window, at `stride` px a cell."""
        box = grid.tile_box(*tile)
        return (box.y - self.box.y) // stride, (box.x - self.box.x) // stride


def plan_windows(
    grid: TileGrid, tiles: Iterable[tuple[int, int]], margin: int, stride: int, step: int
) -> Iterator[Window]:
    """Windows over `tiles`, each tile in one of them, in a fixed order.

    Parameters
    ----------
    margin
        Pixels looked at around the tiles: a multiple of `stride`.
    stride
        Pixels a cell of the CAM. Tiles whose corners are no whole cells apart are looked at one by
        one.
    step
        Sides of windows are multiples of it; what is too much is looked at right and below.
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
