"""Levels of a TIFF held as tiles or strips, in one plane or several, and how to decode them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tifffile import TiffPage as Page

from wsiseg.geometry import Size
from wsiseg.slide.samples import Samples, Unreadable
from wsiseg.slide.tiff import ReadAt, TileError

__all__ = ["PageLevel", "build_level"]

_RAW_PIXELS = 2**17
"""Pixels of a strip that is cut from an uncompressed page."""
_MAX_PIXELS = 2**28
"""Largest strip or tile, as these are decoded as a whole."""


@dataclass(frozen=True)
class _Part:
    """The tiles or strips of one page, or of one colour plane of it."""

    offsets: NDArray[np.int64]
    """``(n,)`` offset of each in bytes."""
    counts: NDArray[np.int64]
    """``(n,)`` size of each in bytes; 0 if the file omits it."""
    first: int
    """Index of the first one within the page."""
    decoder: Callable[..., Any]
    tables: bytes | None

    def decode(self, read_at: ReadAt, index: int) -> NDArray[Any] | None:
        count = int(self.counts[index])
        if count == 0:
            return None
        data = read_at(int(self.offsets[index]), count)
        segment = self.decoder(data, self.first + index, jpegtables=self.tables)[0]
        return None if segment is None else np.asarray(segment[0])


@dataclass(frozen=True)
class PageLevel:
    """One level stored as tiles or strips, in one plane or several, with any accepted samples."""

    size: Size
    tile: Size
    """Size of a tile, or of a strip, which is as wide as the level."""
    parts: tuple[_Part, ...]
    samples: Samples

    shrinks: tuple[int, ...] = ()
    """Empty: its tiles are always decoded at full size."""

    @property
    def across(self) -> int:
        """Number of tiles in a row."""
        return -(-self.size.width // self.tile.width)

    @property
    def held(self) -> NDArray[np.bool_]:
        """``(n,)`` flags of the tiles that the file contains."""
        return np.asarray(np.any([part.counts > 0 for part in self.parts], axis=0))

    def shape(self, shrink: int) -> tuple[int, int, int]:
        """Return the shape of a decoded tile."""
        assert shrink == 1
        return self.tile.height, self.tile.width, 3

    def decode(self, read_at: ReadAt, index: int) -> NDArray[Any] | None:
        """Decode the samples ``(h, w, S)`` of a tile, in the file's own type; ``None`` if omitted.

        Raises
        ------
        TileError
            If it is damaged.
        """
        try:
            planes = [part.decode(read_at, index) for part in self.parts]
        except OSError as error:
            raise TileError(str(error)) from error
        except Exception as error:  # codecs raise whatever they like
            raise TileError(f"{type(error).__name__}: {error}") from error
        present = [plane for plane in planes if plane is not None]
        if not present:
            return None
        if len(present) < len(planes):
            raise TileError(f"only {len(present)} of its {len(planes)} planes are present")
        pixels = present[0] if len(present) == 1 else np.concatenate(present, 2)
        if pixels.ndim != 3 or pixels.shape[2] != self.samples.channels:
            raise TileError(f"decoded as {pixels.dtype} of shape {pixels.shape}")
        return pixels

    def read(self, read_at: ReadAt, index: int, shrink: int, out: NDArray[np.uint8]) -> None:
        """Decode a tile into `out`, ``shape(1)`` uint8 RGB; white if the file omits it."""
        pixels = self.decode(read_at, index)
        if pixels is None:
            out[:] = 255
            return
        height, width = min(pixels.shape[0], out.shape[0]), min(pixels.shape[1], out.shape[1])
        out[height:] = 255
        out[:, width:] = 255
        out[:height, :width] = self.samples.to_rgb(pixels[:height, :width])


def build_level(pages: Sequence[Page], samples: Samples) -> PageLevel:
    """Build the level that `pages` hold: one page, or one for each plane.

    Raises
    ------
    Unreadable
        If a strip or tile is too large, or the number of tiles does not match the size.
    """
    page = pages[0]
    size = Size(page.imagewidth, page.imagelength)
    if all(_is_raw(page) for page in pages):
        rows = max(1, min(size.height, _RAW_PIXELS // size.width))
        raw = tuple(part for page in pages for part in _raw_parts(page, size, rows))
        return PageLevel(size, Size(size.width, rows), raw, samples)
    rows = min(page.rowsperstrip or size.height, size.height)
    tile = Size(page.tilewidth, page.tilelength) if page.is_tiled else Size(size.width, rows)
    if tile.width * tile.height > _MAX_PIXELS:
        raise Unreadable(
            f"strips of {tile.width} x {tile.height} pixels are too large to be decoded as a "
            f"whole; convert it to tiles"
        )
    count = -(-size.width // tile.width) * -(-size.height // tile.height)
    parts = tuple(part for each in pages for part in _parts(each, count))
    return PageLevel(size, tile, parts, samples)


def _is_raw(page: Page) -> bool:
    """Whether the file stores the page as an array, from which strips of any height can be cut."""
    return page.is_contiguous and not page.is_tiled and page.bitspersample in (8, 16)


def _raw_parts(page: Page, size: Size, rows: int) -> Iterator[_Part]:
    contiguous = page.planarconfig == 1
    samples, planes = (page.samplesperpixel, 1) if contiguous else (1, page.samplesperpixel)
    dtype = np.dtype(page.parent.byteorder + ("u1" if page.bitspersample == 8 else "u2"))
    line = size.width * samples * dtype.itemsize

    def decode(data: bytes, index: int, jpegtables: None) -> tuple[NDArray[Any]]:
        return (np.frombuffer(data, dtype).reshape(1, -1, size.width, samples),)

    tops = np.arange(0, size.height, rows)
    counts = (np.minimum(tops + rows, size.height) - tops) * line
    for plane in range(planes):
        start = page.dataoffsets[0] + plane * size.height * line
        yield _Part(start + tops * line, counts, 0, decode, None)


def _parts(page: Page, count: int) -> Iterator[_Part]:
    offsets, counts = (
        np.array(values, np.int64) for values in (page.dataoffsets, page.databytecounts)
    )
    planes = page.samplesperpixel if page.planarconfig == 2 else 1
    if not len(offsets) == len(counts) == count * planes:
        raise Unreadable(f"{len(offsets)} tiles where the size needs {count * planes}")
    counts[offsets == 0] = 0
    for plane in range(planes):
        of_plane = slice(plane * count, (plane + 1) * count)
        yield _Part(offsets[of_plane], counts[of_plane], of_plane.start, page.decode,
                    page.jpegtables)  # fmt: skip
