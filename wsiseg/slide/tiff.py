"""Where a TIFF keeps its compressed tiles, and how one of them is decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import imagecodecs
import numpy as np
import simplejpeg
import tifffile
from numpy.typing import NDArray

from wsiseg.errors import SlideOpenError
from wsiseg.geometry import Size
from wsiseg.slide.pages import Stack, find_pyramid, find_stack

__all__ = [
    "SHRINKS",
    "Level",
    "ReadAt",
    "TileError",
    "TiledLevel",
    "find_levels",
    "probe",
    "reading",
]

ReadAt = Callable[[int, int], bytes]
"""Bytes of a file: their offset and count."""

SHRINKS = (2, 4, 8)
"""Factors by which libjpeg-turbo decodes smaller: each 8 x 8 block as 4 x 4, 2 x 2 or 1 pixel."""

_JPEG, _JP2K_RGB = 7, 33005  # TIFF's Compression
_RGB, _YCBCR = 2, 6  # TIFF's PhotometricInterpretation
_SOI, _APP0, _APP14 = b"\xff\xd8", 0xE0, 0xEE
_LARGEST = 4096
"""Largest side of a tile that is decoded whole."""
_PROBED = 16
"""Tiles, spread over a level, of which one must be decoded for the level to be readable."""


class TileError(Exception):
    """A tile's bytes are not the image that the file says they are."""


class Level(Protocol):
    """One level of a file, decoded tile by tile."""

    @property
    def size(self) -> Size:
        """Pixels."""
        ...

    @property
    def tile(self) -> Size:
        """Pixels of a tile."""
        ...

    @property
    def across(self) -> int:
        """Tiles in a row."""
        ...

    @property
    def held(self) -> NDArray[np.bool_]:
        """``(n,)`` which tiles the file does not leave out."""
        ...

    @property
    def shrinks(self) -> tuple[int, ...]:
        """Factors by which its tiles can be decoded smaller."""
        ...

    def shape(self, shrink: int) -> tuple[int, int, int]:
        """Shape of a decoded tile."""
        ...

    def read(self, read_at: ReadAt, index: int, shrink: int, out: NDArray[np.uint8]) -> None:
        """Fill `out`, `shape` uint8 RGB, contiguous; white where the file leaves the tile out.

        Raises
        ------
        TileError
            If the tile is damaged, or another size.
        """
        ...


@dataclass(frozen=True)
class TiledLevel:
    """One level: its size in pixels, and the place of every tile, row by row."""

    size: Size
    tile: Size
    offsets: NDArray[np.int64]
    """``(n,)`` first byte of each tile."""
    counts: NDArray[np.int64]
    """``(n,)`` bytes of each tile; 0 where the file leaves it out."""
    jpeg_head: bytes | None
    """What comes before a JPEG tile's own bytes; ``None`` for JPEG 2000."""

    @property
    def across(self) -> int:
        """Tiles in a row."""
        return -(-self.size.width // self.tile.width)

    @property
    def held(self) -> NDArray[np.bool_]:
        """``(n,)`` which tiles the file does not leave out."""
        return self.counts > 0

    @property
    def shrinks(self) -> tuple[int, ...]:
        """Factors by which its tiles can be decoded smaller."""
        fits = (s for s in SHRINKS if self.tile.width % s == 0 == self.tile.height % s)
        return () if self.jpeg_head is None else tuple(fits)

    def shape(self, shrink: int) -> tuple[int, int, int]:
        """Shape of a decoded tile."""
        return self.tile.height // shrink, self.tile.width // shrink, 3

    def read(self, read_at: ReadAt, index: int, shrink: int, out: NDArray[np.uint8]) -> None:
        """Fill `out`, `shape` uint8 RGB, contiguous; white where the file leaves the tile out."""
        count = int(self.counts[index])
        if count == 0:
            out[:] = 255
            return
        try:
            data = read_at(int(self.offsets[index]), count)
        except (OSError, ValueError) as error:
            raise TileError(str(error)) from error
        self.decode(data, shrink, out)

    def decode(self, data: bytes, shrink: int, out: NDArray[np.uint8]) -> None:
        """Decode a tile's bytes `shrink` times smaller into `out`, `shape` uint8 RGB, contiguous.

        Raises
        ------
        TileError
            If they are damaged, or another size.
        """
        try:
            if self.jpeg_head is None:
                pixels = imagecodecs.jpeg2k_decode(data, numthreads=1)
            else:
                pixels = _decode_jpeg(b"".join((self.jpeg_head, _bare(data))), out)
        except (ValueError, RuntimeError, MemoryError) as error:
            raise TileError(str(error)) from error
        if pixels.shape != out.shape or pixels.dtype != np.uint8:
            raise TileError(f"{pixels.dtype} of shape {pixels.shape} instead of uint8 {out.shape}")
        if self.jpeg_head is None:
            out[:] = pixels


def _decode_jpeg(data: bytes, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # Into our own memory: a header that claims more pixels is refused before any is taken for them.
    how = {"min_height": out.shape[0], "min_width": out.shape[1], "fastdct": False, "buffer": out}
    try:
        pixels = simplejpeg.decode_jpeg(data, **how)
    except ValueError as error:
        # Stray bytes between segments harm no pixel, and scanners write them.
        if "extraneous bytes" not in str(error):
            raise
        pixels = simplejpeg.decode_jpeg(data, **how, strict=False)
    return np.asarray(pixels)


def _bare(data: bytes) -> memoryview:
    """A tile's JPEG stream from behind its SOI and the markers that speak of colour."""
    if data[:2] != _SOI:
        raise ValueError("does not start as a JPEG")
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] in (b"\xe0", b"\xee"):
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return memoryview(data)[at:]


def _jpeg_head(page: tifffile.TiffPage) -> bytes:
    # Aperio's "JPEG/RGB" holds RGB without saying so in the stream, where a plain decoder takes it
    # for YCbCr. TIFF's tag knows, and Adobe's marker tells the decoder.
    transform = 0 if page.photometric == _RGB else 1
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64" + bytes(4) + bytes([transform])
    tables = page.jpegtables or b""
    return _SOI + adobe + tables[2:-2]


def find_levels(path: Path, sizes: Sequence[Size]) -> tuple[tuple[TiledLevel, ...], Stack | None]:
    """The tiles of the levels of these `sizes`, and of those that OpenSlide passes over.

    Of a z-stack, those of the plane in focus; then it is returned as well. `sizes` may be empty if
    it is one.

    Raises
    ------
    SlideOpenError
        If `path` is no TIFF, or a level is not held as tiles of 8-bit RGB in JPEG or JPEG 2000.
    """
    try:
        with tifffile.TiffFile(path) as file:
            stack = find_stack(file)
            pages = stack.pages if stack else _find_pages(file, sizes)
            levels = tuple(_read_level(page) for page in pages)
            for level in levels:
                probe(file, level)
            return levels, stack
    except (_Unfit, TileError) as error:
        raise SlideOpenError(f"{path}: direct reading: {error}") from error
    except Exception as error:  # tifffile raises whatever a bad file provokes
        raise SlideOpenError(f"{path}: direct reading: no plain TIFF ({error})") from error


class _Unfit(Exception):
    """Why a page cannot be read directly."""


def _find_pages(file: tifffile.TiffFile, sizes: Sequence[Size]) -> tuple[tifffile.TiffPage, ...]:
    tiled = [page for page in file.pages if page.is_tiled]
    pages = tuple(_find_page(tiled, size) for size in sizes)
    if not pages:
        raise _Unfit("OpenSlide does not know it")
    more = () if file.is_svs else find_pyramid(file, sizes[0])
    return max(pages, more, key=len)


def _find_page(pages: list[tifffile.TiffPage], size: Size) -> tifffile.TiffPage:
    same = [page for page in pages if (page.imagewidth, page.imagelength) == size]
    if len(same) != 1:
        raise _Unfit(f"{len(same)} tiled images of {size.width} x {size.height} pixels, 1 needed")
    return same[0]


def _read_level(page: tifffile.TiffPage) -> TiledLevel:
    size = Size(page.imagewidth, page.imagelength)
    tile = Size(page.tilewidth, page.tilelength)
    offsets, counts = (
        np.array(values, np.int64) for values in (page.dataoffsets, page.databytecounts)
    )
    level = TiledLevel(
        size, tile, offsets, counts, _jpeg_head(page) if page.compression == _JPEG else None
    )
    _check(page, level)
    return level


def probe(file: tifffile.TiffFile, level: Level) -> None:
    """Decode a tile, any of some that are there, as better told now than in a worker.

    Raises
    ------
    TileError
        If each of them fails: the decoder does not know their kind, or the level is damaged.
    """
    there = np.flatnonzero(level.held)
    some = there[:: max(1, -(-len(there) // _PROBED))]
    failure: TileError | None = None
    for index in some.tolist():
        try:
            level.read(reading(file), index, 1, np.empty(level.shape(1), np.uint8))
        except TileError as error:
            failure = failure or error
        else:
            return
    if failure is not None:
        raise failure


def reading(file: tifffile.TiffFile) -> ReadAt:
    """What reads the bytes of an open file, one caller at a time."""

    def read_at(offset: int, count: int) -> bytes:
        file.filehandle.seek(offset)
        data = bytes(file.filehandle.read(count))
        if len(data) != count:
            raise OSError(f"the file ends within bytes {offset} to {offset + count}")
        return data

    return read_at


def _check(page: tifffile.TiffPage, level: TiledLevel) -> None:
    jpeg = page.compression == _JPEG and page.photometric in (_RGB, _YCBCR)
    jpeg_2000 = page.compression == _JP2K_RGB and page.photometric == _RGB
    down = -(-level.size.height // level.tile.height)
    whole = len(level.offsets) == len(level.counts) == level.across * down
    if not (jpeg or jpeg_2000):
        raise _Unfit(f"compression {page.compression}, colours {page.photometric}")
    if page.samplesperpixel != 3 or page.bitspersample != 8 or page.planarconfig != 1:
        raise _Unfit(f"{page.samplesperpixel} channels of {page.bitspersample} bits")
    if not whole or max(level.tile) > _LARGEST:
        raise _Unfit(f"{len(level.offsets)} tiles of {level.tile.width} x {level.tile.height}")
