"""Read slides with OpenSlide; translates its errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes import ArgumentError
from pathlib import Path

import numpy as np
import openslide
from numpy.typing import NDArray

from wsiseg.errors import SlideOpenError, SlideReadError
from wsiseg.geometry import Box, Size
from wsiseg.slide.base import composite_on_white
from wsiseg.slide.library import LibrarySlide
from wsiseg.slide.pages import load_stack

__all__ = ["OpenSlideReader"]

_ANCHOR = 256
"""Spacing, in level pixels, of the grid from which levels of fractional downsample are read."""


class OpenSlideReader(LibrarySlide):
    """A slide that OpenSlide opens; raises what `LibrarySlide` raises."""

    _name = "openslide"

    @staticmethod
    def _open(path: Path) -> tuple[openslide.OpenSlide, dict[str, str]]:
        try:
            slide = openslide.OpenSlide(path)
        except openslide.OpenSlideUnsupportedFormatError as error:
            raise SlideOpenError(f"{path}: OpenSlide does not know this format") from error
        except (openslide.OpenSlideError, ArgumentError, OSError) as error:
            raise SlideOpenError(f"{path}: OpenSlide cannot open it ({error})") from error
        return slide, dict(slide.properties)

    @staticmethod
    def _choose_levels(
        path: Path, sizes: Sequence[Size]
    ) -> tuple[tuple[int, ...], tuple[str, ...]]:
        # In a z-stack, OpenSlide has a level for each plane.
        stack = load_stack(path) if len(set(sizes)) < len(sizes) else None
        if stack is None:
            return tuple(range(len(sizes))), ()
        return stack.indices, (stack.note,)

    def _pixels(self, level: int, box: Box) -> NDArray[np.uint8]:
        with _translate(self.path, f"level {level}, box {tuple(box)}"):
            downsample = self._slide.level_downsamples[self._library_levels[level]]
        if downsample == round(downsample):
            return self._region(level, round(downsample), box)
        # OpenSlide accepts level-0 corners, which are off a level pixel by up to half a level-0
        # pixel; it interpolates by the remainder. Fixed anchors make it the same for every box.
        out = np.empty((box.height, box.width, 3), np.uint8)
        for y in range(box.y - box.y % _ANCHOR, box.bottom, _ANCHOR):
            for x in range(box.x - box.x % _ANCHOR, box.right, _ANCHOR):
                cell = Box(x, y, min(_ANCHOR, box.right - x), min(_ANCHOR, box.bottom - y))
                part = cell.intersect(box)
                out[part.slices(box)] = self._region(level, downsample, cell)[part.slices(cell)]
        return out

    def _region(self, level: int, downsample: float, box: Box) -> NDArray[np.uint8]:
        corner = (round(box.x * downsample), round(box.y * downsample))
        with _translate(self.path, f"level {level}, box {tuple(box)}"):
            image = self._slide.read_region(
                corner, self._library_levels[level], (box.width, box.height)
            )
        return composite_on_white(np.asarray(image))

    def _read_associated(self, name: str) -> NDArray[np.uint8]:
        with _translate(self.path, f"associated image {name!r}"):
            image = self._slide.associated_images[name]
        return composite_on_white(np.asarray(image.convert("RGBA")))


@contextmanager
def _translate(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except (openslide.OpenSlideError, ArgumentError, OSError) as error:
        raise SlideReadError(f"{path}: OpenSlide cannot read {what} ({error})") from error
