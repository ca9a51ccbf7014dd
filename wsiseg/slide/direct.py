"""Read compressed tiles directly from the file and decode them, each of them once.

OpenSlide still supplies the metadata: vendor, µm/px, bounds, levels, associated images.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsiseg.config import SlideConfig
from wsiseg.errors import SlideOpenError, SlideReadError
from wsiseg.geometry import Box
from wsiseg.shrink import FACTORS, mean_squares
from wsiseg.slide.base import PyramidSlide
from wsiseg.slide.damage import place_tile
from wsiseg.slide.files import LazyImages, SharedFile, slide_file
from wsiseg.slide.identity import identify_slide
from wsiseg.slide.openslide import OpenSlideReader
from wsiseg.slide.pages import read_aperio
from wsiseg.slide.resample import area_mean, axis_weights
from wsiseg.slide.scratch import Shape, scratch
from wsiseg.slide.tiff import Level, TiledLevel, TileError, find_levels

__all__ = ["DirectReader", "Facts"]

_VENDORS = frozenset({"aperio", "generic-tiff"})
"""Vendors whose levels are plain grids of tiles; others overlap, are scattered, or are padded."""
_CACHED = 4
"""Number of slides whose facts are cached, so that a worker parses a file once, not per block."""
_DEFAULT = SlideConfig()
_ids = itertools.count()
"""An id for every reader, so that readers do not share cached tiles."""


class DirectReader(PyramidSlide):
    """An Aperio or generic TIFF with JPEG or JPEG 2000 tiles, decoded without OpenSlide.

    Raises
    ------
    SlideOpenError
        If OpenSlide does not open the file, or its levels are not plain grids of such tiles.
    MppError
        If the µm/px are missing or implausible and ``config.mpp_override`` is ``None``.
    """

    def __init__(self, path: str | os.PathLike[str], config: SlideConfig = _DEFAULT) -> None:
        path = Path(path)
        self._file = SharedFile(slide_file(path))
        try:
            facts = self._learn(path, self._file.stamp, config)
            super().__init__(
                path,
                reader="direct",
                vendor=facts.vendor,
                level_sizes=tuple(level.size for level in facts.levels),
                properties=facts.properties,
                mpp_override=config.mpp_override,
                identity=facts.identity,
                associated=LazyImages(facts.associated, self._read_associated),
                notes=facts.notes,
            )
        except BaseException:
            self._file.close()
            raise
        self._levels = facts.levels
        self._id = next(_ids)
        self._scaled = config.scaled_decode
        self._blank = config.damaged == "blank"

    @staticmethod
    def _learn(path: Path, stamp: tuple[int, ...], config: SlideConfig) -> Facts:
        """Read the facts of a file; `stamp` only invalidates the cache when the file changes."""
        return _learn(path, stamp)

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def _pixels(self, level: int, box: Box) -> NDArray[np.uint8]:
        out = np.empty((box.height, box.width, 3), np.uint8)
        self._fill(level, box, 1, 1, out)
        return out

    def _source(self, level: int, box: Box, shrink: int) -> NDArray[np.uint8]:
        if shrink == 1 and box != box.intersect(Box(0, 0, *self.level_sizes[level])):
            return super()._source(level, box, shrink)
        out = scratch.array("source", (box.height, box.width, 3))
        self._fill(level, box, shrink, 1, out)
        return out

    def _read_whole(self, level: int, box: Box, times: int, out: NDArray[np.uint8]) -> None:
        tile, shrinks = self._levels[level].tile, self._levels[level].shrinks
        shrink = max((s for s in shrinks if self._scaled and times % s == 0), default=1)
        if tile.width % times or tile.height % times:
            # Some means extend across tile edges.
            self._read_chunks(level, box, (times / shrink, times / shrink), shrink, out)
        else:
            self._fill(level, box, shrink, times // shrink, out)

    def _fill(self, level: int, box: Box, shrink: int, times: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` tile by tile, shrunk by `shrink` in decoding and by `times` in averaging.

        `box` is in these shrunken pixels, inside the level.
        """
        tiles = self._levels[level]
        shape = tiles.shape(shrink)
        columns = list(_cuts(box.x, box.right, shape[1], times))
        for row, down, rows in _cuts(box.y, box.bottom, shape[0], times):
            for column, across, cols in columns:
                # The neighbouring box is likely to need the rest of a tile that is cut.
                keep = rows is not None or cols is not None
                pixels = self._tile(level, row * tiles.across + column, shrink, shape, keep)
                if keep:
                    pixels = pixels[rows or slice(None), cols or slice(None)]
                _average(pixels, times, out[down, across])

    def _tile(
        self, level: int, index: int, shrink: int, shape: Shape, keep: bool
    ) -> NDArray[np.uint8]:
        """Return the pixels of a tile, valid until the next call from this thread."""
        ring = scratch.tiles
        key = (self._id, level, index, shrink)
        cached = ring.get(key)
        if cached is not None:
            return cached
        out = ring.reserve(shape) if keep else scratch.array("tile", shape)
        self._decode(level, index, shrink, out)
        if keep:
            ring.keep(key, out)
        return out

    def _decode(self, level: int, index: int, shrink: int, out: NDArray[np.uint8]) -> None:
        tiles = self._levels[level]
        try:
            tiles.read(self._file.read_at, index, shrink, out)
        except TileError as error:
            row, column = divmod(index, tiles.across)
            if self._blank:
                self.damaged.add(place_tile(self.size, level, tiles.size, tiles.tile, column, row))
                out[:] = 255
                return
            raise SlideReadError(
                f"{self.path}: cannot decode level {level}, tile {index} "
                f"(column {column}, row {row}): {error}"
            ) from error

    def _read_associated(self, name: str) -> NDArray[np.uint8]:
        with OpenSlideReader(self.path, SlideConfig(mpp_override=self.mpp.x)) as slide:
            return slide.associated[name]


def _cuts(
    start: int, stop: int, side: int, times: int
) -> Iterator[tuple[int, slice, slice | None]]:
    """Yield the tiles of `side` pixels that the means ``start .. stop`` of `times` pixels touch.

    Yields the tile's index, its slice of the means, and its slice of pixels; None if all of them.
    """
    means = side // times
    for index in range(start // means, -(-stop // means)):
        corner = index * means
        first, last = max(start, corner), min(stop, corner + means)
        part = slice((first - corner) * times, (last - corner) * times)
        yield index, slice(first - start, last - start), part if last - first < means else None


def _average(pixels: NDArray[np.uint8], times: int, out: NDArray[np.uint8]) -> None:
    """Fill `out` with means of `times` by `times` pixels."""
    if times == 1:
        out[:] = pixels
    elif times in FACTORS:
        mean_squares(pixels, times, out)
    else:
        down, across = (axis_weights(0, count, float(times)) for count in out.shape[:2])
        area_mean(pixels, down, across, out)


@dataclass(frozen=True)
class Facts:
    """The metadata of a slide file, without its pixels."""

    vendor: str
    properties: dict[str, str]
    identity: str
    associated: tuple[str, ...]
    levels: tuple[Level, ...]
    notes: tuple[str, ...]


@lru_cache(_CACHED)
def _learn(path: Path, stamp: tuple[int, ...]) -> Facts:
    """Read the facts of a file; `stamp` only invalidates the cache when the file changes."""
    try:
        # Any plausible µm/px will do: `PyramidSlide` determines the real ones.
        slide = OpenSlideReader(path, SlideConfig(mpp_override=1.0))
    except SlideOpenError:
        facts = _learn_stack(path)
        if facts is None:
            raise
        return facts
    with slide:
        if slide.vendor not in _VENDORS:
            raise SlideOpenError(f"{path}: direct reading: not for the layout of {slide.vendor}")
        levels, _ = find_levels(path, slide.level_sizes)
        _check_missing(path, slide.vendor, levels)
        return Facts(
            slide.vendor, slide.properties, slide.identity, tuple(slide.associated), levels,
            slide.notes,
        )  # fmt: skip


def _learn_stack(path: Path) -> Facts | None:
    """Read an Aperio z-stack whose order of pages OpenSlide rejects; None for other files."""
    properties = read_aperio(path)
    if properties is None:
        return None
    levels, stack = find_levels(path, ())
    notes = (stack.note,) if stack else ()
    return Facts("aperio", properties, identify_slide(path), (), levels, notes)


def _check_missing(path: Path, vendor: str, levels: tuple[TiledLevel, ...]) -> None:
    # OpenSlide fills these from the finer level.
    gaps = [i for i, level in enumerate(levels) if i and not level.counts.all()]
    if vendor == "aperio" and gaps:
        raise SlideOpenError(f"{path}: direct reading: level {gaps[0]} leaves out tiles")
