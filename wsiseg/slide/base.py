"""The interface of slides (`Slide`), and the geometry that all readers share (`PyramidSlide`)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from wsiseg.errors import GeometryError
from wsiseg.geometry import Box, MppXY, Size
from wsiseg.slide.damage import DamagedTile
from wsiseg.slide.description import read_description, read_ome
from wsiseg.slide.levels import covers, find_downsample, is_level
from wsiseg.slide.mpp import find_contradictions, find_objective, resolve_mpp
from wsiseg.slide.resample import AxisWeights, area_mean, axis_weights

__all__ = ["PyramidSlide", "Slide", "composite_on_white"]

_CHUNK_WIDTH = 4096
_CHUNK_PIXELS = 2**21
"""Level pixels that are read and averaged at a time; they fit in the processor's cache."""
_LEVEL_SLACK = 1.01
"""A level up to 1 % coarser than requested is still used."""
_NOISE = 1e-6


class Slide(Protocol):
    """A slide that is open for reading; several threads may read from it at once."""

    path: Path
    """The file."""
    reader: str
    """Name of the reader that opened it."""
    vendor: str
    """Scanner family, as the reader names it."""
    size: Size
    """Level-0 pixels."""
    mpp: MppXY
    """Level-0 µm/px."""
    mpp_source: str
    """Where `mpp` comes from; see `wsiseg.slide.mpp.resolve_mpp`."""
    objective: float | None
    """Magnification of the objective; None if unknown."""
    bounds: Box
    """Scanned part in level-0 pixels; the whole slide if the file does not give it."""
    identity: str
    """Hex sha256 that changes with the file's content (see `wsiseg.slide.identity`)."""
    level_sizes: tuple[Size, ...]
    """Pixels of each pyramid level, finest first."""
    damaged: set[DamagedTile]
    """Tiles that could not be decoded and were read as glass so far (``slide.damaged: blank``)."""
    associated: Mapping[str, NDArray[np.uint8]]
    """Label, macro and other images: ``(H, W, 3)`` uint8 RGB, read when looked up."""
    notes: tuple[str, ...]
    """What users should know about the file, such as contradictory metadata."""

    def read(self, box: Box, mpp: float, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Read `box` of the raster at `mpp`: ``(height, width, 3)`` uint8 RGB.

        The pixels are written to `out` if it is given.
        """
        ...

    def raster_size(self, mpp: float) -> Size:
        """Return the size of the whole slide in pixels at `mpp` µm/px."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class PyramidSlide(ABC):
    """A `Slide` made of levels: readers supply level pixels, this class does all the geometry.

    A level's downsample is derived from its size (`wsiseg.slide.levels.find_downsample`), not from
    the file's metadata. Everything outside the slide is white, and counts as white in the average
    of a pixel across the slide's edge; where a level's pixels do not end at that edge, a finer
    level is read.

    Raises
    ------
    MppError
        If `properties` and `mpp_override` give no plausible µm/px.
    """

    def __init__(
        self,
        path: Path,
        *,
        reader: str,
        vendor: str,
        level_sizes: tuple[Size, ...],
        properties: Mapping[str, str],
        mpp_override: float | None,
        identity: str,
        associated: Mapping[str, NDArray[np.uint8]],
        notes: tuple[str, ...] = (),
    ) -> None:
        self.path = path
        self.reader = reader
        self.vendor = vendor
        self.level_sizes = level_sizes
        self.size = level_sizes[0]
        self.properties = dict(properties)
        self.mpp, self.mpp_source = resolve_mpp(properties, mpp_override, str(path), self.size)
        self.objective = find_objective(properties)
        contradictions = find_contradictions(properties, self.mpp, self.mpp_source, self.size)
        planes = _describe_planes(properties, self.size)
        shapes = tuple(self._describe_shapes())
        self.notes = tuple(dict.fromkeys((*notes, *planes, *shapes, *contradictions)))
        self.bounds = _bounds(properties, self.size)
        self.identity = identity
        self.associated = associated
        self.damaged: set[DamagedTile] = set()

    @abstractmethod
    def close(self) -> None:
        """Release the file."""

    @abstractmethod
    def _pixels(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Read a non-empty `box` inside `level`, in its pixels: ``(height, width, 3)`` uint8."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def raster_size(self, mpp: float) -> Size:
        """Return the slide's size at `mpp` µm/px: ``ceil(size * slide.mpp / mpp)`` per axis."""
        scale_x, scale_y = self._scale(mpp)
        return Size(
            max(1, math.ceil(self.size.width / scale_x - _NOISE)),
            max(1, math.ceil(self.size.height / scale_y - _NOISE)),
        )

    def read(self, box: Box, mpp: float, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Read `box` of the raster at `mpp` µm/px, area-averaged from the nearest finer level.

        A box read at once equals the same box read in parts. Below level-0 µm/px, pixels repeat.

        Parameters
        ----------
        box
            In raster pixels: pixel ``i`` covers the level-0 interval ``[i * s, (i + 1) * s)`` with
            ``s = mpp / slide.mpp`` per axis. May lie outside the slide, where pixels are white.
        mpp
            µm/px of the raster, both axes.
        out
            ``(box.height, box.width, 3)`` uint8 to write to; a new array if not given.

        Returns
        -------
        ``(box.height, box.width, 3)`` uint8 RGB.

        Raises
        ------
        GeometryError
            If `mpp` is not positive, the box has a negative side, or `out` has another shape.
        SlideReadError
            If the file's pixels cannot be read.
        """
        scale = self._scale(mpp)
        if box.width < 0 or box.height < 0:
            raise GeometryError(f"{self.path}: box {tuple(box)} has a negative side; give >= 0")
        if out is None:
            out = np.empty((box.height, box.width, 3), np.uint8)
        elif out.shape != (box.height, box.width, 3):
            raise GeometryError(
                f"{self.path}: out has shape {out.shape}; give {(box.height, box.width, 3)}"
            )
        inside = box.intersect(Box(0, 0, *self.raster_size(mpp)))
        if inside != box:
            out[:] = 255
        if not inside.empty:
            self._read_inside(inside, scale, out[inside.slices(box)])
        return out

    def read_level(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Read `box` in pixels of `level`: ``(box.height, box.width, 3)`` uint8; white outside."""
        inside = box.intersect(Box(0, 0, *self.level_sizes[level]))
        if inside == box and not box.empty:
            return self._pixels(level, box)
        out = np.full((box.height, box.width, 3), 255, np.uint8)
        if not inside.empty:
            out[inside.slices(box)] = self._pixels(level, inside)
        return out

    def _read_inside(self, box: Box, scale: tuple[float, float], out: NDArray[np.uint8]) -> None:
        level = self._level_for(scale)
        factors, times = self._factors(level, scale)
        for part, inside in _split(box, self._whole_pixels(level, factors)):
            target = out[part.slices(box)]
            if inside and times:
                self._read_whole(level, part, times, target)
            elif inside:
                self._read_chunks(level, part, factors, 1, target)
            else:
                # Pixels across the slide's edge are mixed with white.
                finer = self._covering(level)
                self._read_chunks(finer, part, self._factors(finer, scale)[0], 1, target)

    def _factors(self, level: int, scale: tuple[float, float]) -> tuple[tuple[float, float], int]:
        """Return pixels of `level` per raster pixel, x and y, and the integer both equal, or 0."""
        down_x, down_y = self._downsample(level)
        factors = scale[0] / down_x, scale[1] / down_y
        return factors, _common_integer(factors)

    def _whole_pixels(self, level: int, factors: tuple[float, float]) -> Size:
        """Return the extent, from the origin, of raster pixels that level and slide fully cover."""
        level_size, down = self.level_sizes[level], self._downsample(level)
        width, height = (
            int(min(pixels, math.floor(length / step + _NOISE)) / factor + _NOISE)
            for length, pixels, step, factor in zip(
                self.size, level_size, down, factors, strict=True
            )
        )
        return Size(width, height)

    def _covering(self, level: int) -> int:
        """Return the coarsest level up to `level` that ends where the slide ends."""
        while not covers(self.size, self.level_sizes[level], self._downsample(level)):
            level -= 1
        return level

    def _read_whole(self, level: int, box: Box, times: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` with means of `times` x `times` pixels of `level`, all of them inside it."""
        self._read_chunks(level, box, (float(times), float(times)), 1, out)

    def _read_chunks(
        self,
        level: int,
        box: Box,
        factors: tuple[float, float],
        shrink: int,
        out: NDArray[np.uint8],
    ) -> None:
        """Fill `out` with means over `factors` pixels of `level` read `shrink` times smaller."""
        columns = axis_weights(box.x, box.width, factors[0])
        rows = axis_weights(box.y, box.height, factors[1])
        width = min(box.width, max(1, int(_CHUNK_WIDTH / columns.factor)))
        height = max(1, int(_CHUNK_PIXELS / (width * columns.factor * rows.factor)))
        for left in range(0, box.width, width):
            across = columns.part(left, min(left + width, box.width))
            for top in range(0, box.height, height):
                down = rows.part(top, min(top + height, box.height))
                source = self._source(level, _source_box(down, across), shrink)
                area_mean(source, down, across, out[top : top + height, left : left + width])

    def _source(self, level: int, box: Box, shrink: int) -> NDArray[np.uint8]:
        """Read `box` of a level `shrink` times smaller; the next call may overwrite the result."""
        assert shrink == 1, "only readers that override this can shrink"
        return self.read_level(level, box)

    def _level_for(self, scale: tuple[float, float]) -> int:
        best, coarsest = 0, 1.0
        for level in range(len(self.level_sizes)):
            x, y = self._downsample(level)
            fits = x <= scale[0] * _LEVEL_SLACK and y <= scale[1] * _LEVEL_SLACK
            if fits and x > coarsest and is_level((x, y)):
                best, coarsest = level, x
        return best

    def _describe_shapes(self) -> Iterator[str]:
        for level, (width, height) in enumerate(self.level_sizes):
            if not is_level(self._downsample(level)):
                yield f"level {level}, {width} x {height} px, is no smaller slide, and not read"

    def _downsample(self, level: int) -> tuple[float, float]:
        return find_downsample(self.size, self.level_sizes[level])

    def _scale(self, mpp: float) -> tuple[float, float]:
        if not mpp > 0 or not math.isfinite(mpp):
            raise GeometryError(f"{self.path}: cannot read at {mpp!r} µm/px; give more than 0")
        return mpp / self.mpp.x, mpp / self.mpp.y


def composite_on_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Composite ``(H, W, 4)`` uint8 RGBA, not premultiplied, on white: ``(H, W, 3)`` uint8."""
    alpha = rgba[..., 3:]
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(rgba[..., :3])
    opaque = alpha.astype(np.uint16)
    mixed = rgba[..., :3] * opaque + 255 * (255 - opaque)
    return ((mixed + 127) // 255).astype(np.uint8)


def _common_integer(factors: tuple[float, float]) -> int:
    """Return the integer that both factors equal, or 0."""
    times = round(factors[0])
    return times if all(abs(factor - times) < _NOISE for factor in factors) else 0


def _split(box: Box, inner: Size) -> Iterator[tuple[Box, bool]]:
    """Yield the part of `box` within `inner` (``True``), and the parts to the right and below."""
    right = min(max(inner.width, box.x), box.right)
    bottom = min(max(inner.height, box.y), box.bottom)
    parts = (
        (Box(box.x, box.y, right - box.x, bottom - box.y), True),
        (Box(right, box.y, box.right - right, bottom - box.y), False),
        (Box(box.x, bottom, box.width, box.bottom - bottom), False),
    )
    return ((part, inside) for part, inside in parts if not part.empty)


def _source_box(rows: AxisWeights, columns: AxisWeights) -> Box:
    width, height = columns.stop - columns.first, rows.stop - rows.first
    return Box(columns.first, rows.first, width, height)


def _describe_planes(properties: Mapping[str, str], size: Size) -> tuple[str, ...]:
    ome = read_ome(read_description(properties), size)
    if ome is None or ome.planes < 2:
        return ()
    return (f"z-stack of {ome.planes} focal planes; the first is read",)


def _bounds(properties: Mapping[str, str], size: Size) -> Box:
    # QuPath crops to the bounds only where all four are given; so do we.
    names = ("x", "y", "width", "height")
    try:
        box = Box(*(int(properties[f"openslide.bounds-{name}"]) for name in names))
    except (KeyError, ValueError):
        return Box(0, 0, *size)
    return box
