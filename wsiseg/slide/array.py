"""A slide held in memory: for tests, examples and data that are not slide files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsiseg.errors import GeometryError
from wsiseg.geometry import Box, Size
from wsiseg.slide.base import PyramidSlide, composite_on_white

if TYPE_CHECKING:
    from wsiseg.slide.base import Slide

__all__ = ["ArraySlide"]


class ArraySlide(PyramidSlide):
    """Pixels in memory as a `Slide`.

    Parameters
    ----------
    array
        Level 0: ``(H, W, 3)`` uint8 RGB, or ``(H, W, 4)`` uint8 RGBA, composited on white.
    mpp
        Level-0 µm/px of both axes.
    name
        Used as the path.
    levels
        Coarser levels of the same image, finest first, shaped like `array`.
    bounds
        Scanned part in level-0 pixels; the whole array by default.

    Raises
    ------
    GeometryError
        If an array is empty, not uint8, or has neither 3 nor 4 channels.
    MppError
        If `mpp` is implausible.
    """

    def __init__(
        self,
        array: NDArray[np.uint8],
        mpp: float,
        name: str = "array",
        levels: Sequence[NDArray[np.uint8]] = (),
        bounds: Box | None = None,
    ) -> None:
        self._levels = tuple(_to_rgb(level, name) for level in (array, *levels))
        super().__init__(
            Path(name),
            reader="array",
            vendor="array",
            level_sizes=tuple(Size(level.shape[1], level.shape[0]) for level in self._levels),
            properties={},
            mpp_override=mpp,
            identity=_hash(self._levels[0]),
            associated={},
        )
        if bounds is not None:
            self.bounds = bounds

    def close(self) -> None:
        """Do nothing: memory is released with the object."""

    def _pixels(self, level: int, box: Box) -> NDArray[np.uint8]:
        return self._levels[level][box.slices()]


def _to_rgb(array: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (3, 4) or not array.size:
        raise GeometryError(
            f"{name}: {array.dtype} array of shape {array.shape}; "
            "uint8 (H, W, 3) or (H, W, 4) needed"
        )
    return composite_on_white(array) if array.shape[2] == 4 else array


def _hash(array: NDArray[np.uint8]) -> str:
    digest = hashlib.sha256(repr(array.shape).encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


if TYPE_CHECKING:
    _: type[Slide] = ArraySlide
