"""What the readers that wrap a slide library share (`LibrarySlide`)."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from wsiseg.config import SlideConfig
from wsiseg.geometry import Size
from wsiseg.slide.base import PyramidSlide
from wsiseg.slide.files import LazyImages, slide_file
from wsiseg.slide.identity import identify_slide

__all__ = ["LibrarySlide"]

_DEFAULT = SlideConfig()


class LibrarySlide(PyramidSlide):
    """A slide opened by a library whose object speaks OpenSlide's Python interface.

    Raises
    ------
    SlideOpenError
        If the library does not open the file.
    MppError
        If the µm/px are missing or absurd and ``config.mpp_override`` is ``None``.
    """

    _name: ClassVar[str]

    def __init__(self, path: str | os.PathLike[str], config: SlideConfig = _DEFAULT) -> None:
        path = Path(path)
        self._slide, properties = self._open(slide_file(path))
        try:
            sizes = [Size(*size) for size in self._slide.level_dimensions]
            self._own, notes = self._choose_levels(path, sizes)
            super().__init__(
                path,
                reader=self._name,
                vendor=properties.get("openslide.vendor", "unknown"),
                level_sizes=tuple(sizes[own] for own in self._own),
                properties=properties,
                mpp_override=config.mpp_override,
                identity=identify_slide(path),
                associated=LazyImages(tuple(self._slide.associated_images), self._read_associated),
                notes=notes,
            )
        except BaseException:
            self._slide.close()
            raise

    def close(self) -> None:
        """Release the file."""
        self._slide.close()

    @staticmethod
    @abstractmethod
    def _open(path: Path) -> tuple[Any, dict[str, str]]:
        """The library's object, and its properties under OpenSlide's names."""

    @staticmethod
    def _choose_levels(
        path: Path, sizes: Sequence[Size]
    ) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Which of the library's levels are the slide's, finest first, and what is to be said."""
        return tuple(range(len(sizes))), ()

    @abstractmethod
    def _read_associated(self, name: str) -> NDArray[np.uint8]:
        """``(H, W, 3)`` uint8 RGB of an image beside the pyramid."""
