"""Find which pages of a TIFF are the levels of its image, and which focal plane they show."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import tifffile

from wsiseg.geometry import Size
from wsiseg.slide.levels import find_downsample

__all__ = ["Stack", "count_levels", "find_pyramid", "find_stack", "load_stack", "read_aperio"]

_OFFSET = re.compile(
    r"(?:^|\|)\s*OffsetZ\s*=\s*([-+]?[0-9]*[.,]?[0-9]+(?:e[-+]?[0-9]+)?)", re.IGNORECASE
)


class Stack(NamedTuple):
    """The plane in focus of an Aperio file that holds several."""

    pages: tuple[tifffile.TiffPage, ...]
    """Its levels, finest first."""
    indices: tuple[int, ...]
    """Their indices among the file's tiled pages, which are OpenSlide's levels."""
    offsets: tuple[float, ...]
    """Offsets of all planes, in µm."""

    @property
    def note(self) -> str:
        """A note for users: the planes, and which is read."""
        planes = ", ".join(f"{offset:g}" for offset in self.offsets)
        nearest = min(self.offsets, key=abs)
        return (
            f"z-stack of {len(self.offsets)} focal planes (at {planes} µm); "
            f"the one at {nearest:g} is read"
        )


def find_stack(file: tifffile.TiffFile) -> Stack | None:
    """Return the plane nearest to offset 0 of a z-stack; None if `file` is not a z-stack.

    Aperio gives the offset of each plane in its description (``OffsetZ``), except for the one at 0.
    """
    if not file.is_svs:
        return None
    tiled = [page for page in file.pages if page.is_tiled]
    by_size: dict[Size, dict[float, int]] = defaultdict(dict)
    for index, page in enumerate(tiled):
        if page.is_reduced:  # a label
            continue
        by_size[_size(page)].setdefault(_offset(page), index)
    offsets = sorted({offset for planes in by_size.values() for offset in planes})
    if len(offsets) < 2:
        return None
    nearest = min(offsets, key=abs)
    sizes = sorted((size for size in by_size if nearest in by_size[size]), reverse=True)
    indices = tuple(by_size[size][nearest] for size in sizes)
    return Stack(tuple(tiled[index] for index in indices), indices, tuple(offsets))


def load_stack(path: Path) -> Stack | None:
    """Return `find_stack` of the file at `path`; None if tifffile cannot read it."""
    try:
        with tifffile.TiffFile(path) as file:
            return find_stack(file)
    except Exception:  # noqa: BLE001  # tifffile raises whatever a bad file provokes
        return None


def read_aperio(path: Path) -> dict[str, str] | None:
    """Read the properties of a z-stack, under OpenSlide's names; None for other files."""
    if load_stack(path) is None:
        return None
    with tifffile.TiffFile(path) as file:
        text = file.pages.first.description
    pairs = (part.partition("=") for part in text.split("|")[1:])
    properties = {f"aperio.{key.strip()}": value.strip() for key, _, value in pairs}
    return properties | {"openslide.vendor": "aperio", "tiff.ImageDescription": text}


def find_pyramid(file: tifffile.TiffFile, size: Size) -> tuple[tifffile.TiffPage, ...]:
    """Return the pages that tifffile considers levels of the image of `size`, finest first.

    OpenSlide knows the pages that are flagged as reduced, but not SubIFDs (OME-TIFF) or levels of
    vendors that it does not know (Motic). A level is tiled like the first, in the same format, and
    an integer number of times smaller.
    """
    series = next((one for one in file.series if _is_image(one, size)), None)
    if series is None:
        return ()
    pages = [level.keyframe for level in series.levels if len(level.pages) == 1]
    return tuple(takewhile(lambda page: _is_level(page, pages[0]), pages))


def count_levels(path: Path, size: Size) -> int:
    """Return how many levels `find_pyramid` finds in a file; 0 if tifffile cannot read it."""
    try:
        with tifffile.TiffFile(path) as file:
            return len(find_pyramid(file, size))
    except Exception:  # noqa: BLE001  # tifffile raises whatever a bad file provokes
        return 0


def _is_image(series: tifffile.TiffPageSeries, size: Size) -> bool:
    return len(series.pages) == 1 and _size(series.keyframe) == size


def _is_level(page: tifffile.TiffPage, first: tifffile.TiffPage) -> bool:
    formats = [
        (one.is_tiled, one.compression, one.photometric, one.samplesperpixel, one.bitspersample)
        for one in (page, first)
    ]
    down = find_downsample(_size(first), _size(page))
    return formats[0] == formats[1] and all(step.is_integer() for step in down)


def _size(page: tifffile.TiffPage) -> Size:
    return Size(page.imagewidth, page.imagelength)


def _offset(page: tifffile.TiffPage) -> float:
    match = _OFFSET.search(page.description or "")
    return float(match[1].replace(",", ".")) if match else 0.0
