"""Read slides with tiffslide, which uses tifffile; translates their errors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tiffslide
from numpy.typing import NDArray

from wsiseg.errors import SlideOpenError, SlideReadError
from wsiseg.geometry import Box
from wsiseg.slide.base import composite_on_white
from wsiseg.slide.library import LibrarySlide

__all__ = ["TiffSlideReader"]


class TiffSlideReader(LibrarySlide):
    """A slide that tiffslide opens: TIFFs of most scanners, also generic and single-level ones.

    Raises what `LibrarySlide` raises, and SlideOpenError if tiffslide cannot decode any pixel of a
    coarse grid, or the pixels are not 8-bit RGB or RGBA.
    """

    _name = "tiffslide"

    @staticmethod
    def _open(path: Path) -> tuple[tiffslide.TiffSlide, dict[str, str]]:
        slide = None
        try:
            slide = tiffslide.TiffSlide(path)
            # Properties are parsed only when they are accessed.
            properties = _openslide_names(slide)
            _whiten(slide)
            _probe(slide, path)
        except BaseException as error:
            if slide is not None:
                slide.close()
            if isinstance(error, SlideOpenError) or not isinstance(error, Exception):
                raise
            # tifffile raises whatever a bad file provokes
            raise SlideOpenError(f"{path}: tiffslide cannot open it ({error})") from error
        return slide, {"openslide.vendor": "generic-tiff"} | properties

    def _pixels(self, level: int, box: Box) -> NDArray[np.uint8]:
        downsample = self._slide.level_downsamples[level]
        corner = (_corner(box.x, downsample), _corner(box.y, downsample))
        with _translate(self.path, f"level {level}, box {tuple(box)}"):
            pixels = self._slide.read_region(
                corner, level, (box.width, box.height), as_array=True, padding=False
            )
            return _to_rgb(np.asarray(pixels))

    def _read_associated(self, name: str) -> NDArray[np.uint8]:
        with _translate(self.path, f"associated image {name!r}"):
            image = self._slide.associated_images[name]
            return composite_on_white(np.asarray(image.convert("RGBA")))


def _probe(slide: tiffslide.TiffSlide, path: Path) -> None:
    # tifffile opens files whose compression it cannot decode; better to fail now than in a worker.
    try:
        pixel = _read_any_pixel(slide)
    except Exception as error:  # codecs raise whatever they like
        raise SlideOpenError(f"{path}: tiffslide cannot decode it ({error})") from error
    if pixel.dtype != np.uint8 or pixel.shape[2] not in (3, 4):
        raise SlideOpenError(
            f"{path}: {pixel.dtype} pixels with {pixel.shape[2]} channels; with tiffslide only "
            "8-bit RGB and RGBA are read"
        )


def _read_any_pixel(slide: tiffslide.TiffSlide) -> NDArray[np.uint8]:
    """Read the first pixel, or another of a coarse grid over level 0 if its tile is damaged."""
    width, height = slide.dimensions
    corners = [(x * width // 4, y * height // 4) for y in range(4) for x in range(4)]
    failure: Exception | None = None
    for corner in corners:
        try:
            return np.asarray(slide.read_region(corner, 0, (1, 1), as_array=True))
        except Exception as error:  # noqa: BLE001  # codecs raise whatever they like
            failure = failure or error
    assert failure is not None
    raise failure


def _whiten(slide: tiffslide.TiffSlide) -> None:
    # tifffile fills missing tiles with GDAL's nodata value, which is black if the file has none.
    for series in slide.ts_tifffile.series:
        for level in series.levels:
            level.keyframe.nodata = 255


def _openslide_names(slide: tiffslide.TiffSlide) -> dict[str, str]:
    stated = {key: value for key, value in slide.properties.items() if value is not None}
    return {key.replace("tiffslide.", "openslide."): str(value) for key, value in stated.items()}


def _corner(position: int, downsample: float) -> int:
    # tiffslide floors corner / downsample; take the first corner that lands on `position`.
    corner = math.ceil(position * downsample)
    return corner if int(corner / downsample) >= position else corner + 1


def _to_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return composite_on_white(pixels) if pixels.shape[2] == 4 else pixels


@contextmanager
def _translate(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # codecs raise whatever they like
        raise SlideReadError(f"{path}: tiffslide cannot read {what} ({error})") from error
