"""Write PNG in strips, with palette and true resolution; or compress a PNG fast, in memory."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from wsiseg.atomic import open_atomic
from wsiseg.geometry import Box, Size

__all__ = ["LARGEST_PNG", "pack_grey", "write_png"]

LARGEST_PNG = 89_478_485
"""Number of pixels above which Pillow suspects an attack; many viewers stop there too."""

_STRIP = 1024  # rows
_GREY, _INDEXED = 0, 3
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_UP = 2  # the filter of a row that holds its differences to the row above


def write_png(
    path: str | Path,
    read: Callable[[Box], NDArray[np.uint8]],
    size: Size,
    mpp: float,
    palette: NDArray[np.uint8] | None = None,
) -> Path:
    """Write an image strip by strip.

    Parameters
    ----------
    read
        Returns ``(H, W)`` uint8 of a box: palette indices or, without a palette, 0 and 1.
    mpp
        µm per pixel, stored as pixels per metre.
    palette
        ``(256, 3)`` RGB for 8 bits per pixel; without it, the image is black and white with 1 bit.

    Returns
    -------
    `path`.
    """
    bits, kind = (1, _GREY) if palette is None else (8, _INDEXED)
    per_metre = round(1e6 / mpp)
    with open_atomic(path) as file:
        file.write(_begin(size.width, size.height, bits, kind))
        file.write(_chunk(b"pHYs", struct.pack(">IIB", per_metre, per_metre, 1)))
        if palette is not None:
            file.write(_chunk(b"PLTE", palette.tobytes()))
        for data in _compress(read, size, bits):
            file.write(_chunk(b"IDAT", data))
        file.write(_chunk(b"IEND", b""))
    return Path(path)


def pack_grey(values: NDArray[np.uint8]) -> bytes:
    """Encode ``(H, W)`` uint8 as a grey PNG, in a quarter of the time that Pillow takes."""
    height, width = values.shape
    rows = np.empty((height, 1 + width), np.uint8)
    rows[:, 0], rows[0, 1:] = _UP, values[0]
    np.subtract(values[1:], values[:-1], out=rows[1:, 1:])
    data = bytes(imagecodecs.deflate_encode(rows.tobytes(), level=1))
    return _begin(width, height, 8, _GREY) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _begin(width: int, height: int, bits: int, kind: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return _SIGNATURE + _chunk(b"IHDR", header)


def _compress(read: Callable[[Box], NDArray[np.uint8]], size: Size, bits: int) -> Iterator[bytes]:
    compressor = zlib.compressobj(level=6)
    for y in range(0, size.height, _STRIP):
        rows = read(Box(0, y, size.width, min(_STRIP, size.height - y)))
        packed = np.packbits(rows, axis=1) if bits == 1 else rows
        # Each row begins with its filter: 0, none.
        if data := compressor.compress(np.pad(packed, ((0, 0), (1, 0))).tobytes()):
            yield data
    yield compressor.flush()


def _chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
