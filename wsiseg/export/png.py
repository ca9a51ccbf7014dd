"""PNG written in strips, with its palette and its true resolution; Pillow holds the whole."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsiseg.atomic import open_atomic
from wsiseg.geometry import Box, Size

__all__ = ["LARGEST_PNG", "write_png"]

LARGEST_PNG = 89_478_485
"""Pixels from which Pillow takes a picture for an attack; many viewers stop there too."""

_STRIP = 1024
_GREY, _INDEXED = 0, 3


def write_png(
    path: str | Path,
    read: Callable[[Box], NDArray[np.uint8]],
    size: Size,
    mpp: float,
    palette: NDArray[np.uint8] | None = None,
) -> Path:
    """Write a picture strip by strip.

    Parameters
    ----------
    read
        Gives ``(H, W)`` uint8 of a box: values of the palette or, without one, 0 and 1.
    mpp
        µm per pixel, kept as pixels per metre.
    palette
        ``(256, 3)`` RGB for 8 bits a pixel; without it the picture is black and white, 1 bit.

    Returns
    -------
    `path`.
    """
    bits, kind = (1, _GREY) if palette is None else (8, _INDEXED)
    header = struct.pack(">IIBBBBB", size.width, size.height, bits, kind, 0, 0, 0)
    per_metre = round(1e6 / mpp)
    with open_atomic(path) as file:
        file.write(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header))
        file.write(_chunk(b"pHYs", struct.pack(">IIB", per_metre, per_metre, 1)))
        if palette is not None:
            file.write(_chunk(b"PLTE", palette.tobytes()))
        for data in _compress(read, size, bits):
            file.write(_chunk(b"IDAT", data))
        file.write(_chunk(b"IEND", b""))
    return Path(path)


def _compress(read: Callable[[Box], NDArray[np.uint8]], size: Size, bits: int) -> Iterator[bytes]:
    packer = zlib.compressobj(level=6)
    for y in range(0, size.height, _STRIP):
        rows = read(Box(0, y, size.width, min(_STRIP, size.height - y)))
        packed = np.packbits(rows, axis=1) if bits == 1 else rows
        # Each row is led by its filter: 0, none.
        if data := packer.compress(np.pad(packed, ((0, 0), (1, 0))).tobytes()):
            yield data
    yield packer.flush()


def _chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
