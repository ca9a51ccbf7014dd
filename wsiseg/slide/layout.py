"""Examine how a TIFF stores its image, and find its levels.

`examine` checks a file once, before any reader opens it, against the rules of
`wsiseg.slide.samples`: no reader can misread what these reject.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import tifffile
from tifffile import TiffPage as Page

from wsiseg.errors import SlideOpenError
from wsiseg.geometry import Size
from wsiseg.slide.description import was_written_here
from wsiseg.slide.page_level import PageLevel, build_level
from wsiseg.slide.pages import find_stack
from wsiseg.slide.samples import Samples, Unreadable, admit_samples, find_planes
from wsiseg.slide.tiff import TileError, probe, reading

__all__ = ["Layout", "examine", "find_page_levels"]

_CACHED = 16
"""Number of files whose layout is cached, so that a worker examines a file once, not per block."""
_ABORTED = "the conversion that wrote it was interrupted: convert the slide again"
_ORIENTATION = 274
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_VENDORS = ("bif", "ndpi", "philips", "qpi", "scn")
"""Formats whose levels are more than grids of tiles; in the others, a page is a level."""


@dataclass(frozen=True)
class Layout:
    """How a TIFF stores its level 0."""

    samples: Samples
    planes: tuple[int, ...]
    """Pages of its series that are red, green and blue; empty if one page holds all."""
    native: bool
    """Whether every library that opens the file reads such pixels correctly."""
    generic: bool
    """Whether a page is a level, so that the file can be read without knowing its scanner."""
    notes: tuple[str, ...] = ()
    """What users should know about the file."""


def examine(path: Path, white: int | None = None) -> Layout | None:
    """Return the layout of a TIFF; ``None`` for other files and invalid TIFFs.

    `white` is ``slide.white_level``.

    Raises
    ------
    SlideOpenError
        If it is a TIFF that no reader should read: `wsiseg.slide.samples` rejects it, it is a map
        that wsiseg wrote, or its level 0 holds no tile or is wholly transparent, as after an
        aborted conversion.
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


@lru_cache(_CACHED)
def _examine(path: Path, stamp: tuple[int, ...], white: int | None) -> Layout | None:
    try:
        with tifffile.TiffFile(path) as file:
            return _describe_layout(file, white)
    except Unreadable as error:
        raise SlideOpenError(f"{path}: not read: {error}") from error
    except Exception:  # noqa: BLE001  # tifffile raises whatever a bad file provokes
        return None  # the readers report what is wrong


def _describe_layout(file: tifffile.TiffFile, white: int | None) -> Layout:
    if was_written_here(file.pages.first.description):
        raise Unreadable("it is a map that wsiseg wrote, not a slide")
    # Before accessing the series, which replaces pages by frames with less detail.
    page = max(file.pages, key=lambda page: page.imagewidth * page.imagelength)
    axes, shape, pages, channels = "", (), [page], page.samplesperpixel
    with suppress(Exception):  # tifffile raises if metadata contradict the pages
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
    if samples.alpha != "none" and generic and not _shows(file, build_level(parts, samples)):
        raise Unreadable(f"level 0 is wholly transparent; {_ABORTED}")
    orientation = int(page.tags.valueof(_ORIENTATION, default=1))
    native = samples.plain and not planes and page.planarconfig == 1 and orientation == 1
    notes = _describe_twins(file, page) if file.is_svs else _describe_frames(axes, shape, planes)
    if orientation != 1:
        notes += (f"its orientation (TIFF tag 274: {orientation}) is not applied: read as stored",)
    return Layout(samples, planes, native, generic, notes if generic else ())


def _describe_twins(file: tifffile.TiffFile, page: Page) -> tuple[str, ...]:
    """Return a note if Aperio pages of level 0's size are several, and not focal planes."""
    twins = [
        each for each in file.pages
        if each.is_tiled and each.shape == page.shape and not each.is_reduced
    ]  # fmt: skip
    several = len(twins) > 1 and find_stack(file) is None
    return (f"holds {len(twins)} pictures of this size; the first is read",) if several else ()


def _describe_frames(axes: str, shape: Sequence[int], planes: Sequence[int]) -> tuple[str, ...]:
    """Return a note if a file holds further images; focal planes have a note of their own."""
    ignored = "YXSZC" if planes else "YXSZ"
    frames = math.prod(
        length for axis, length in zip(axes, shape, strict=True) if axis not in ignored
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
    # In some scanners' formats, offsets mean something else.
    present = counts > 0
    if generic and len(offsets) == len(counts):
        present &= (offsets > 0) & (offsets + counts <= file.filehandle.size)
    if not present.any():
        raise Unreadable(f"level 0 holds none of its {len(counts)} tiles; {_ABORTED}")


def _shows(file: tifffile.TiffFile, level: PageLevel) -> bool:
    """Whether any pixel is not transparent; tiles of equal bytes are decoded once."""
    seen: set[bytes] = set()
    read_at = reading(file)
    alpha = level.parts[-1]
    order = np.flatnonzero(alpha.counts)
    middle = len(order) // 2  # start there, as slides may have transparent margins
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
    """Find the levels of a generic TIFF, finest first, and its properties under OpenSlide's names.

    The levels are the pages of these `sizes`, if there is one of each, or the pages that tifffile
    considers levels, if these are more.

    Raises
    ------
    SlideOpenError
        If they are not plain grids of tiles or strips, or no tile of a sample can be decoded.
    """
    try:
        with tifffile.TiffFile(path) as file:
            by_size, by_series = (
                _levels_of_sizes(file, layout, sizes), _levels_of_series(file, layout),
            )  # fmt: skip
            levels = max(by_size, by_series, key=len)
            if file.is_svs:
                _check_single(file, levels[0].size)
            for level in levels:
                probe(file, level)
            return levels, _read_properties(file.pages.first)
    except (Unreadable, TileError) as error:
        raise SlideOpenError(f"{path}: direct reading: {error}") from error
    except Exception as error:  # tifffile raises whatever a bad file provokes
        raise SlideOpenError(f"{path}: direct reading: not a plain TIFF ({error})") from error


def _check_single(file: tifffile.TiffFile, size: Size) -> None:
    # Several may be focal planes; nothing here says which one to read.
    matching = [page for page in file.pages if (page.imagewidth, page.imagelength) == size]
    tiled = [page for page in matching if page.is_tiled]
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
    return tuple(build_level(each, layout.samples) for each in pages)


def _levels_of_series(file: tifffile.TiffFile, layout: Layout) -> tuple[PageLevel, ...]:
    levels = []
    for series in file.series[0].levels:
        pages = [page.aspage() for page in series.pages if page is not None]
        levels.append([pages[i] for i in layout.planes] or pages[:1])
    first = levels[0][0]
    matching = [pages for pages in levels if _format(pages[0]) == _format(first)]
    return tuple(build_level(pages, layout.samples) for pages in matching)


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
