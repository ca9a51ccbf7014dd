"""Tiles of a slide's file that could not be decoded and were read as glass."""

from __future__ import annotations

from typing import NamedTuple

from wsiseg.geometry import Box, Size

__all__ = ["DamagedTile", "place_tile"]


class DamagedTile(NamedTuple):
    """Where a tile that was read as glass lies."""

    level: int
    column: int
    row: int
    box: Box
    """In level-0 pixels, within the slide."""


def place_tile(
    slide: Size, level: int, size: Size, tile: Size, column: int, row: int
) -> DamagedTile:
    """A damaged tile of `level`, which has this `size` and tiles of this size.

    Its box covers it, to whole level-0 pixels.
    """
    edges = []
    for whole, length, side, index in zip(slide, size, tile, (column, row), strict=True):
        first, last = index * side, min((index + 1) * side, length)
        edges.append((first * whole // length, -(-last * whole // length)))
    (left, right), (top, bottom) = edges
    return DamagedTile(level, column, row, Box(left, top, right - left, bottom - top))
