"""How a TIFF holds its picture: where each part of it lies, and how one is decoded, whatever it is.

`examine` looks at a file once, before any reader does, and holds it against the rule of
`wsiseg.slide.samples`: what that refuses, no reader gets to misread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import TiffPage as Page

from wsiseg.errors import SlideOpenError
from wsiseg.geometry import Size
from wsiseg.slide.pages import find_stack
from wsiseg.slide.samples import Samples, Unreadable, admit_samples, find_planes
from wsiseg.slide.tiff import ReadAt, TileError, probe, reading

__all__ = ["Layout", "PageLevel", "examine", "find_page_levels"]

_FORMATS = 16
"""Files whose layout is remembered, so that a worker looks at each once and not once a block."""
_RAW_PIXELS = 2**17
"""Of a strip cut from a page that is not compressed."""
_MOST_PIXELS = 2**28
"""Of a strip or tile that is decoded whole."""
_ABORTED = "the conversion that wrote it was cut short: convert the slide again"
_ORIENTATION = 274
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_VENDORS = ("bif", "ndpi", "philips", "qpi", "scn")
"""Whose levels are more than grids of tiles; of the others a page is a level."""


@dataclass(frozen=True)
class Layout:
    """What a TIFF's level 0 is."""

    samples: Samples
    planes: tuple[int, ...]
    """Pages of its series that are red, green and blue; empty where one page is all."""
    native: bool
    """Whether each library reads such pixels as they are meant, if it opens the file at all."""
    generic: bool
    """Whether a page is a level, so that the file is read without knowing its scanner."""
    notes: tuple[str, ...] = ()
    """What a person should know of the file."""


def examine(path: Path, white: int | None = None) -> Layout | None:
    """The layout of a TIFF; ``None`` for other files and for what is no sound TIFF.

    `white` is ``slide.white_level``.

    Raises
    ------
    SlideOpenError
        If it is a TIFF that no reader should read: `wsiseg.slide.samples` refuses it, or its
        level 0 holds no tile or is wholly transparent, which an aborted conversion leaves behind.
    """
    try:
        status = path.stat()
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise SlideOpenError(f"{path}: cannot be read ({error.strerror})") from error
    if magic not in _MAGIC:
        return None
    stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return _examine(path, stamp, white)


@lru_cache(_FORMATS)
def _examine(path: Path, stamp: tuple[int, ...], white: int | None) -> Layout | None:
    try:
        with tifffile.TiffFile(path) as file:
            return _judge(file, white)
    except Unreadable as error:
        raise SlideOpenError(f"{path}: not read: {error}") from error
    except Exception:  # noqa: BLE001  # tifffile raises whatever a bad file provokes
        return None  # the readers say what is wrong


def _judge(file: tifffile.TiffFile, white: int | None) -> Layout:
    # Before the series are looked for, after which pages are frames of less detail.
    page = max(file.pages, key=lambda page: page.imagewidth * page.imagelength)
    axes, shape, pages, channels = "", (), [page], page.samplesperpixel
    with suppress(Exception):  # so it does with metadata that contradict the pages
        series = file.series[0]
        if page.index in {other.index for other in series.pages if other is not None}:
            axes, shape = series.axes, tuple(series.shape)
            pages = [each for each in series.pages if each is not None]
            channels *= shape[axes.index("C")] if "C" in axes else len(pages)
    planes = find_planes(page, axes, shape, file.ome_metadata)
    samples = admit_samples(page, planes, file.ome_metadata, channels, white)
    generic = not any(getattr(file, f"is_{vendor}", False) for vendor in _VENDORS)
    parts = [pages[i].aspage() for i in planes] or [page]
    _check_content(file, parts, generic)
    if samples.alpha != "none" and generic and not _shows(file, page_level(parts, samples)):
        raise Unreadable(f"level 0 is wholly transparent; {_ABORTED}")
    turned = int(page.tags.valueof(_ORIENTATION, default=1))
    native = samples.plain and not planes and page.planarconfig == 1 and turned == 1
    notes = () if file.is_svs else _describe_frames(axes, shape, planes)
    if turned != 1:
        notes += (f"its orientation (TIFF tag 274: {turned}) is not applied: read as it is stored",)
    if file.is_svs:
        notes += _describe_twins(file, page)
    return Layout(samples, planes, native, generic, notes if generic else ())


def _describe_twins(file: tifffile.TiffFile, page: Page) -> tuple[str, ...]:
    """A line where Aperio's pages are several of level 0's size, and nothing tells focal planes."""
    twins = [
        each for each in file.pages
        if each.is_tiled and each.shape == page.shape and not each.is_reduced
    ]  # fmt: skip
    several = len(twins) > 1 and find_stack(file) is None
    return (f"holds {len(twins)} pictures of this size; the first is read",) if several else ()


def _describe_frames(axes: str, shape: Sequence[int], planes: Sequence[int]) -> tuple[str, ...]:
    """A line where a file holds more pictures than the one read; focal planes have their own."""
    passed = "YXSZC" if planes else "YXSZ"
    frames = math.prod(
        length for axis, length in zip(axes, shape, strict=True) if axis not in passed
    )
    return (f"holds {frames} pictures of this size; the first is read",) if frames > 1 else ()


def _check_content(file: tifffile.TiffFile, pages: Sequence[Page], generic: bool) -> None:
    offsets, counts = (
        np.concatenate([np.array(values, np.int64) for values in each])
        for each in (
            [page.dataoffsets for page in pages],
            [page.databytecounts for page in pages],
        )
    )
    # Some scanners' offsets mean something else.
    held = counts > 0
    if generic and len(offsets) == len(counts):
        held &= (offsets > 0) & (offsets + counts <= file.filehandle.size)
    if not held.any():
        raise Unreadable(f"level 0 holds none of its {len(counts)} tiles; {_ABORTED}")


def _shows(file: tifffile.TiffFile, level: PageLevel) -> bool:
    """Whether any pixel is not transparent; of tiles of the same bytes one is decoded."""
    seen: set[bytes] = set()
    read_at = reading(file)
    alpha = level.parts[-1]
    order = np.flatnonzero(alpha.counts)
    middle = len(order) // 2  # where a slide has more than a margin
    for index in [*order[middle:].tolist(), *order[:middle].tolist()]:
        data = read_at(int(alpha.offsets[index]), int(alpha.counts[index]))
        if data in seen:
            continue
        seen.add(data)
        try:
            pixels = level.decode(read_at, index)
        except TileError:
            continue
        if pixels is not None and level.samples.shows(pixels):
            return True
    return False


def find_page_levels(
    path: Path, layout: Layout, sizes: Sequence[Size] = ()
) -> tuple[tuple[PageLevel, ...], dict[str, str]]:
    """The levels of a generic TIFF, finest first, and its properties under OpenSlide's names.

    Those of these `sizes`, if each is that of one page, or those that tifffile takes for levels,
    if they are more.

    Raises
    ------
    SlideOpenError
        If they are not plain grids of tiles or strips, or none of some tiles can be decoded.
    """
    try:
        with tifffile.TiffFile(path) as file:
            known = _levels_of_sizes(file, layout, sizes), _levels_of_series(file, layout)
            levels = max(known, key=len)
            if file.is_svs:
                _check_single(file, levels[0].size)
            for level in levels:
                probe(file, level)
            return levels, _read_properties(file.pages.first)
    except (Unreadable, TileError) as error:
        raise SlideOpenError(f"{path}: direct reading: {error}") from error
    except Exception as error:  # tifffile raises whatever a bad file provokes
        raise SlideOpenError(f"{path}: direct reading: no plain TIFF ({error})") from error


def _check_single(file: tifffile.TiffFile, size: Size) -> None:
    # Focal planes, of which nothing here says which is meant.
    same = [page for page in file.pages if (page.imagewidth, page.imagelength) == size]
    tiled = [page for page in same if page.is_tiled]
    if len(tiled) > 1:
        raise Unreadable(
            f"{len(tiled)} tiled images of {size.width} x {size.height} pixels, 1 needed"
        )


def _levels_of_sizes(
    file: tifffile.TiffFile, layout: Layout, sizes: Sequence[Size]
) -> tuple[PageLevel, ...]:
    if layout.planes:
        return ()
    pages = [[page for page in file.pages if (page.imagewidth, page.imagelength) == size]
             for size in sizes]  # fmt: skip
    if any(len(each) != 1 for each in pages):
        return ()
    return tuple(page_level(each, layout.samples) for each in pages)


def _levels_of_series(file: tifffile.TiffFile, layout: Layout) -> tuple[PageLevel, ...]:
    levels = []
    for series in file.series[0].levels:
        pages = [page.aspage() for page in series.pages if page is not None]
        levels.append([pages[i] for i in layout.planes] or pages[:1])
    first = levels[0][0]
    same = [pages for pages in levels if _format(pages[0]) == _format(first)]
    return tuple(page_level(pages, layout.samples) for pages in same)


def _format(page: Page) -> tuple[object, ...]:
    return page.photometric, page.samplesperpixel, page.bitspersample, page.planarconfig


def _read_properties(page: Page) -> dict[str, str]:
    properties = {"openslide.vendor": "generic-tiff"}
    if page.description:
        properties |= dict.fromkeys(("openslide.comment", "tiff.ImageDescription"),
                                    page.description)  # fmt: skip
    for name in ("XResolution", "YResolution"):
        value = page.tags.valueof(name)
        if isinstance(value, tuple) and len(value) == 2 and value[1]:
            properties[f"tiff.{name}"] = repr(value[0] / value[1])
    unit = page.tags.valueof("ResolutionUnit")
    if unit is not None:
        properties["tiff.ResolutionUnit"] = str(getattr(unit, "name", unit)).lower()
    return properties


@dataclass(frozen=True)
class _Part:
    """The tiles or strips of one page, or of one colour of it."""

    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    """``(n,)`` bytes of each; 0 where the file leaves it out."""
    first: int
    """Index, in the page, of its first."""
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
    """One level held as tiles or strips, in one plane or several, of any admitted samples."""

    size: Size
    tile: Size
    """Of a strip too: as wide as the level."""
    parts: tuple[_Part, ...]
    samples: Samples

    shrinks: tuple[int, ...] = ()
    """Its tiles are always decoded whole."""

    @property
    def across(self) -> int:
        """Tiles in a row."""
        return -(-self.size.width // self.tile.width)

    @property
    def held(self) -> NDArray[np.bool_]:
        """``(n,)`` which tiles the file does not leave out."""
        return np.asarray(np.any([part.counts > 0 for part in self.parts], axis=0))

    def shape(self, shrink: int) -> tuple[int, int, int]:
        """Shape of a decoded tile."""
        assert shrink == 1
        return self.tile.height, self.tile.width, 3

    def decode(self, read_at: ReadAt, index: int) -> NDArray[Any] | None:
        """Samples ``(h, w, S)`` of a tile, in the file's own type; ``None`` if it is left out.

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
        there = [plane for plane in planes if plane is not None]
        if not there:
            return None
        if len(there) < len(planes):
            raise TileError(f"{len(there)} of its {len(planes)} planes are there")
        pixels = there[0] if len(there) == 1 else np.concatenate(there, 2)
        if pixels.ndim != 3 or pixels.shape[2] != self.samples.channels:
            raise TileError(f"decoded as {pixels.dtype} of shape {pixels.shape}")
        return pixels

    def read(self, read_at: ReadAt, index: int, shrink: int, out: NDArray[np.uint8]) -> None:
        """Fill `out`, ``shape(1)`` uint8 RGB, with a tile; white where the file leaves it out."""
        pixels = self.decode(read_at, index)
        if pixels is None:
            out[:] = 255
            return
        height, width = min(pixels.shape[0], out.shape[0]), min(pixels.shape[1], out.shape[1])
        out[height:] = 255
        out[:, width:] = 255
        out[:height, :width] = self.samples.to_rgb(pixels[:height, :width])


def page_level(pages: Sequence[Page], samples: Samples) -> PageLevel:
    """The level that `pages` hold: one page, or its planes.

    Raises
    ------
    Unreadable
        If the number of tiles is not what the sizes say.
    """
    page = pages[0]
    size = Size(page.imagewidth, page.imagelength)
    if all(_is_raw(page) for page in pages):
        rows = max(1, min(size.height, _RAW_PIXELS // size.width))
        raw = tuple(part for page in pages for part in _raw_parts(page, size, rows))
        return PageLevel(size, Size(size.width, rows), raw, samples)
    rows = min(page.rowsperstrip or size.height, size.height)
    tile = Size(page.tilewidth, page.tilelength) if page.is_tiled else Size(size.width, rows)
    if tile.width * tile.height > _MOST_PIXELS:
        raise Unreadable(
            f"strips of {tile.width} x {tile.height} pixels are too large to be decoded whole; "
            f"convert it to tiles"
        )
    count = -(-size.width // tile.width) * -(-size.height // tile.height)
    parts = tuple(part for each in pages for part in _parts(each, count))
    return PageLevel(size, tile, parts, samples)


def _is_raw(page: Page) -> bool:
    """Whether it lies in the file as an array, which strips of any height can be cut from."""
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
