"""Read TIFFs that the slide libraries cannot open or would misread: all accepted sample types."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from wsiseg.config import SlideConfig
from wsiseg.errors import SlideOpenError
from wsiseg.slide.direct import DirectReader, Facts
from wsiseg.slide.identity import identify_slide
from wsiseg.slide.layout import examine, find_page_levels
from wsiseg.slide.openslide import OpenSlideReader

__all__ = ["GenericReader"]

_CACHED = 4
"""Number of slides whose facts are cached, so that a worker parses a file once, not per block."""


class GenericReader(DirectReader):
    """A TIFF of tiles or strips, in one plane or several, with any codec that tifffile knows.

    Samples are converted to 8-bit RGB as described in `wsiseg.slide.samples`. Slower than the other
    readers, as no tile is decoded at a smaller size.

    Raises
    ------
    SlideOpenError
        If the file is not a TIFF whose pages are its levels, or `wsiseg.slide.samples` rejects it.
    MppError
        If the µm/px are missing or implausible and ``config.mpp_override`` is ``None``.
    """

    @staticmethod
    def _learn(path: Path, stamp: tuple[int, ...], config: SlideConfig) -> Facts:
        return _learn(path, stamp, config.white_level)


@lru_cache(_CACHED)
def _learn(path: Path, stamp: tuple[int, ...], white: int | None) -> Facts:
    layout = examine(path, white)
    if layout is None or not layout.generic:
        raise SlideOpenError(f"{path}: direct reading: not for the layout of this scanner")
    try:
        with OpenSlideReader(path, SlideConfig(mpp_override=1.0)) as slide:
            metadata = slide.properties, slide.vendor, tuple(slide.associated), slide.notes
            sizes = slide.level_sizes
    except SlideOpenError:
        metadata, sizes = None, ()
    levels, properties = find_page_levels(path, layout, sizes)
    properties, vendor, associated, notes = metadata or (properties, "generic-tiff", (), ())
    return Facts(vendor, properties, identify_slide(path), associated, levels, notes)
