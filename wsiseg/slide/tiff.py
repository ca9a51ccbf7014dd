"""Locate the compressed tiles of a TIFF, and decode them."""

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
"""Reads bytes of a file, given their offset and count."""

SHRINKS = (2, 4, 8)
"""Factors by which libjpeg-turbo can reduce: each 8 x 8 block to 4 x 4, 2 x 2 or 1 pixel."""

_JPEG, _JP2K_RGB = 7, 33005  # TIFF's Compression
_RGB, _YCBCR = 2, 6  # TIFF's PhotometricInterpretation
_SOI, _APP0, _APP14 = b"\xff\xd8", 0xE0, 0xEE
_MAX_SIDE = 4096
"""Largest side of a tile, as tiles are decoded as a whole."""
_PROBED = 16
"""Number of tiles, spread over a level, of which one must be decodable."""


class TileError(Exception):
    """A tile's bytes are not the image that the file says they are."""


class Level(Protocol):
    """One level of a file, decoded tile by tile."""

    @property
    def size(self) -> Size:
        """Width and height in pixels."""
        ...

    @property
    def tile(self) -> Size:
        """Width and height of a tile in pixels."""
        ...

    @property
    def across(self) -> int:
        """Number of tiles in a row."""
        ...

    @property
    def held(self) -> NDArray[np.bool_]:
        """``(n,)`` flags of the tiles that the file contains."""
        ...

    @property
    def shrinks(self) -> tuple[int, ...]:
        """Factors by which its tiles can be reduced in decoding."""
        ...

    def shape(self, shrink: int) -> tuple[int, int, int]:
        """Return the shape of a decoded tile."""
        ...

    def read(self, read_at: ReadAt, index: int, shrink: int, out: NDArray[np.uint8]) -> None:
        """Decode a tile into `out`: `shape` uint8 RGB, contiguous; white if the file omits it.

        Raises
        ------
        TileError
            If the tile is damaged, or has another size.
        """
        ...


@dataclass(frozen=True)
class TiledLevel:
    """One level: its size in pixels, and where every tile is in the file, row by row."""

    size: Size
    tile: Size
    offsets: NDArray[np.int64]
    """``(n,)`` offset of each tile in bytes."""
    counts: NDArray[np.int64]
    """``(n,)`` size of each tile in bytes; 0 if the file omits it."""
    jpeg_head: bytes | None
    """Bytes that precede a JPEG tile's own; ``None`` for JPEG 2000."""

    @property
    def across(self) -> int:
        """Number of tiles in a row."""
        return -(-self.size.width // self.tile.width)

    @property
    def held(self) -> NDArray[np.bool_]:
        """``(n,)`` flags of the tiles that the file contains."""
        return self.counts > 0

    @property
    def shrinks(self) -> tuple[int, ...]:
        """Factors by which its tiles can be reduced in decoding."""
        fitting = (s for s in SHRINKS if self.tile.width % s == 0 == self.tile.height % s)
        return () if self.jpeg_head is None else tuple(fitting)

    def shape(self, shrink: int) -> tuple[int, int, int]:
        """Return the shape of a decoded tile."""
        return self.tile.height // shrink, self.tile.width // shrink, 3

    def read(self, read_at: ReadAt, index: int, shrink: int, out: NDArray[np.uint8]) -> None:
        """Decode a tile into `out`: `shape` uint8 RGB, contiguous; white if the file omits it."""
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
            If they are damaged, or the tile has another size.
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
    # With our own buffer, a header that claims more pixels is rejected before memory is allocated.
    options = {
        "min_height": out.shape[0], "min_width": out.shape[1], "fastdct": False, "buffer": out,
    }  # fmt: skip
    try:
        pixels = simplejpeg.decode_jpeg(data, **options)
    except ValueError as error:
        # Extraneous bytes between segments affect no pixel, and scanners write them.
        if "extraneous bytes" not in str(error):
            raise
        pixels = simplejpeg.decode_jpeg(data, **options, strict=False)
    return np.asarray(pixels)


def _bare(data: bytes) -> memoryview:
    """Strip the SOI and the colour markers (APP0, APP14) from a tile's JPEG stream."""
    if data[:2] != _SOI:
        raise ValueError("does not start as a JPEG")
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] in (b"\xe0", b"\xee"):
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return memoryview(data)[at:]


def _jpeg_head(page: tifffile.TiffPage) -> bytes:
    # Aperio's "JPEG/RGB" is RGB, but the stream does not say so, and decoders assume YCbCr. The
    # TIFF tag says which it is; Adobe's marker passes that on to the decoder.
    transform = 0 if page.photometric == _RGB else 1
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64" + bytes(4) + bytes([transform])
    tables = page.jpegtables or b""
    return _SOI + adobe + tables[2:-2]


def find_levels(path: Path, sizes: Sequence[Size]) -> tuple[tuple[TiledLevel, ...], Stack | None]:
    """Locate the tiles of the levels of these `sizes`, and of levels that OpenSlide misses.

    For a z-stack, those of the plane in focus; the stack is then returned as well, and `sizes` may
    be empty.

    Raises
    ------
    SlideOpenError
        If `path` is not a TIFF, or a level is not stored as tiles of 8-bit RGB in JPEG or JPEG
        2000.
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
        raise SlideOpenError(f"{path}: direct reading: not a plain TIFF ({error})") from error


class _Unfit(Exception):
    """The reason why a page cannot be read directly."""


def _find_pages(file: tifffile.TiffFile, sizes: Sequence[Size]) -> tuple[tifffile.TiffPage, ...]:
    tiled = [page for page in file.pages if page.is_tiled]
    pages = tuple(_find_page(tiled, size) for size in sizes)
    if not pages:
        raise _Unfit("OpenSlide does not know it")
    pyramid = () if file.is_svs else find_pyramid(file, sizes[0])
    return max(pages, pyramid, key=len)


def _find_page(pages: list[tifffile.TiffPage], size: Size) -> tifffile.TiffPage:
    matching = [page for page in pages if (page.imagewidth, page.imagelength) == size]
    if len(matching) != 1:
        raise _Unfit(
            f"{len(matching)} tiled images of {size.width} x {size.height} pixels, 1 needed"
        )
    return matching[0]


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
    """Decode one tile, trying several, so that failure is reported now and not by a worker.

    Raises
    ------
    TileError
        If none can be decoded: the decoder does not support them, or the level is damaged.
    """
    present = np.flatnonzero(level.held)
    probed = present[:: max(1, -(-len(present) // _PROBED))]
    failure: TileError | None = None
    for index in probed.tolist():
        try:
            level.read(reading(file), index, 1, np.empty(level.shape(1), np.uint8))
        except TileError as error:
            failure = failure or error
        else:
            return
    if failure is not None:
        raise failure


def reading(file: tifffile.TiffFile) -> ReadAt:
    """Return a function that reads the bytes of an open file, for one thread at a time."""

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
    complete = len(level.offsets) == len(level.counts) == level.across * down
    if not (jpeg or jpeg_2000):
        raise _Unfit(f"compression {page.compression}, colours {page.photometric}")
    if page.samplesperpixel != 3 or page.bitspersample != 8 or page.planarconfig != 1:
        raise _Unfit(f"{page.samplesperpixel} channels of {page.bitspersample} bits")
    if not complete or max(level.tile) > _MAX_SIDE:
        raise _Unfit(f"{len(level.offsets)} tiles of {level.tile.width} x {level.tile.height}")
