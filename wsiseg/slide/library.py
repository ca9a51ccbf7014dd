"""The base class of readers that wrap a slide library (`LibrarySlide`)."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from wsiseg.config import SlideConfig
from wsiseg.errors import SlideOpenError, SlideReadError
from wsiseg.geometry import Box, Size
from wsiseg.slide.base import PyramidSlide
from wsiseg.slide.damage import place_tile
from wsiseg.slide.files import LazyImages, slide_file
from wsiseg.slide.identity import identify_slide

__all__ = ["LibrarySlide"]

_DEFAULT = SlideConfig()
_PROBED = 4
"""Rows and columns of the grid of pixels of which one must be readable."""
_TILE = 256
"""Side of the square that is left out if the library does not give the size of tiles."""


class LibrarySlide(PyramidSlide):
    """A slide opened by a library whose objects have OpenSlide's Python interface.

    Raises
    ------
    SlideOpenError
        If the library does not open the file.
    MppError
        If the µm/px are missing or implausible and ``config.mpp_override`` is ``None``.
    """

    _name: ClassVar[str]

    def __init__(self, path: str | os.PathLike[str], config: SlideConfig = _DEFAULT) -> None:
        path = Path(path)
        self._blank = config.damaged == "blank"
        self._slide, properties = self._open(slide_file(path))
        self._failed: list[Any] = []
        try:
            sizes = [Size(*size) for size in self._slide.level_dimensions]
            self._library_levels, notes = self._choose_levels(path, sizes)
            super().__init__(
                path,
                reader=self._name,
                vendor=properties.get("openslide.vendor", "unknown"),
                level_sizes=tuple(sizes[index] for index in self._library_levels),
                properties=properties,
                mpp_override=config.mpp_override,
                identity=identify_slide(path),
                associated=LazyImages(tuple(self._slide.associated_images), self._read_associated),
                notes=notes,
            )
            if self._blank:
                self._probe()
        except BaseException:
            self._slide.close()
            raise

    def close(self) -> None:
        """Release the file."""
        for slide in (*self._failed, self._slide):
            slide.close()

    def read_level(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Read `box` in pixels of `level`: ``(box.height, box.width, 3)`` uint8; white outside."""
        try:
            return super().read_level(level, box)
        except SlideReadError:
            if not self._blank:
                raise
        return self._read_tiles(level, box)

    def _read_tiles(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Read tile by tile; tiles that cannot be read are white, and recorded as damaged."""
        out = np.full((box.height, box.width, 3), 255, np.uint8)
        size = self.level_sizes[level]
        tile = self._tile_size(level)
        inside = box.intersect(Box(0, 0, *size))
        reader = self._open_again()
        try:
            for row in range(inside.y // tile.height, -(-inside.bottom // tile.height)):
                for column in range(inside.x // tile.width, -(-inside.right // tile.width)):
                    corner = column * tile.width, row * tile.height
                    part = Box(*corner, *tile).intersect(inside)
                    try:
                        out[part.slices(box)] = reader.read_level(level, part)
                    except SlideReadError:
                        self.damaged.add(place_tile(self.size, level, size, tile, column, row))
                        # OpenSlide rejects all reads after its first failure.
                        reader.close()
                        reader = self._open_again()
        finally:
            reader.close()
        # Other threads may still be reading from the one that failed.
        self._failed.append(self._slide)
        self._slide = self._open(slide_file(self.path))[0]
        return out

    def _probe(self) -> None:
        """Raise `SlideOpenError` if no pixel of a coarse grid over level 0 can be read."""
        width, height = self.size
        for index in range(_PROBED**2):
            row, column = divmod(index, _PROBED)
            pixel = Box(column * width // _PROBED, row * height // _PROBED, 1, 1)
            with self._open_again() as reader:
                try:
                    reader.read_level(0, pixel)
                except SlideReadError as error:
                    failure = error
                else:
                    return
        raise SlideOpenError(f"{self.path}: no tile of level 0 can be decoded ({failure})")

    def _open_again(self) -> Self:
        return type(self)(self.path, SlideConfig(mpp_override=self.mpp.x))

    def _tile_size(self, level: int) -> Size:
        prefix = f"openslide.level[{self._library_levels[level]}].tile"
        names = (f"{prefix}-{side}" for side in ("width", "height"))
        width, height = (int(self.properties.get(name) or 0) for name in names)
        return Size(width or _TILE, height or _TILE)

    @staticmethod
    @abstractmethod
    def _open(path: Path) -> tuple[Any, dict[str, str]]:
        """Open a file: the library's object, and its properties under OpenSlide's names."""

    @staticmethod
    def _choose_levels(
        path: Path, sizes: Sequence[Size]
    ) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Return which of the library's levels are the slide's, finest first, and notes."""
        return tuple(range(len(sizes))), ()

    @abstractmethod
    def _read_associated(self, name: str) -> NDArray[np.uint8]:
        """Read an associated image: ``(H, W, 3)`` uint8 RGB."""
