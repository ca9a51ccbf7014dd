"""Tiles of a slide file that could not be decoded and were read as glass."""

from __future__ import annotations

from typing import NamedTuple

from wsiseg.geometry import Box, Size

__all__ = ["DamagedTile", "place_tile"]


class DamagedTile(NamedTuple):
    """The position of a tile that was read as glass."""

    level: int
    column: int
    row: int
    box: Box
    """In level-0 pixels, within the slide."""


def place_tile(
    slide: Size, level: int, size: Size, tile: Size, column: int, row: int
) -> DamagedTile:
    """Return the position of a damaged tile of `level`, which has `size` px and tiles of `tile` px.

    Its box covers the tile, rounded outward to whole level-0 pixels.
    """
    edges = []
    for full_length, length, side, index in zip(slide, size, tile, (column, row), strict=True):
        first, last = index * side, min((index + 1) * side, length)
        edges.append((first * full_length // length, -(-last * full_length // length)))
    (left, right), (top, bottom) = edges
    return DamagedTile(level, column, row, Box(left, top, right - left, bottom - top))
