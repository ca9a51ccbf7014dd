"""Open slides with any reader, and read any box of them at any µm/px."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from wsiseg.config import SlideConfig
from wsiseg.errors import SlideOpenError
from wsiseg.slide.array import ArraySlide
from wsiseg.slide.base import PyramidSlide, Slide
from wsiseg.slide.direct import DirectReader
from wsiseg.slide.files import (
    SLIDE_SUFFIXES,
    find_slides,
    find_unsearched,
    gather_slide,
    is_own_map,
    is_slide,
    name_slide,
    slide_file,
)
from wsiseg.slide.generic import GenericReader
from wsiseg.slide.identity import identify_slide, was_identified_as
from wsiseg.slide.layout import Layout, examine
from wsiseg.slide.mpp import resolve_mpp
from wsiseg.slide.openslide import OpenSlideReader
from wsiseg.slide.pages import count_levels

__all__ = [
    "READERS",
    "SLIDE_SUFFIXES",
    "ArraySlide",
    "PyramidSlide",
    "Slide",
    "find_slides",
    "find_unsearched",
    "gather_slide",
    "identify_slide",
    "is_own_map",
    "is_slide",
    "name_slide",
    "open_slide",
    "resolve_mpp",
    "was_identified_as",
]


def _open_tiffslide(path: Path, config: SlideConfig) -> Slide:
    from wsiseg.slide.tiffslide import TiffSlideReader  # loads zarr, and is seldom needed

    return TiffSlideReader(path, config)


READERS: dict[str, Callable[[Path, SlideConfig], Slide]] = {
    "direct": DirectReader,
    "openslide": OpenSlideReader,
    "tiffslide": _open_tiffslide,
}
"""Readers by name, in the order in which ``auto`` tries them."""

_DEFAULT = SlideConfig()


def open_slide(path: str | os.PathLike[str], config: SlideConfig = _DEFAULT) -> Slide:
    """Open a slide file; use it as a context manager, or close it.

    All readers accept the same kinds of images (`wsiseg.slide.samples`). A TIFF whose pixels some
    of them would misread, or that the chosen one does not open, is read by `GenericReader`, whose
    name is ``"direct"``.

    Parameters
    ----------
    path
        The file; for a DICOM series, any of its files or the folder that holds it.
    config
        Reader and µm/px; ``reader="auto"`` uses the first of `READERS` that opens the file.

    Raises
    ------
    SlideOpenError
        If the file is missing, is not a brightfield image in colour, is an aborted conversion, or
        no reader opens it; the message gives the reason of each reader.
    MppError
        If the µm/px are missing or implausible, and `config` does not give them.
    """
    path = Path(path)
    layout = examine(slide_file(path), config.white_level)
    slide = _open(path, config, layout)
    if layout is not None:
        slide.notes = tuple(dict.fromkeys((*slide.notes, *layout.notes)))
    return slide


def _open(path: Path, config: SlideConfig, layout: Layout | None) -> Slide:
    if layout is not None and layout.generic and not layout.native:
        return GenericReader(path, config)
    names: list[str] = list(READERS) if config.reader == "auto" else [config.reader]
    errors: list[SlideOpenError] = []
    for name in names:
        try:
            slide = READERS[name](path, config)
        except SlideOpenError as error:
            errors.append(error)
        else:
            return _prefer_levels(slide, config) if config.reader == "auto" else slide
    if layout is not None and layout.generic:
        try:
            return GenericReader(path, config)
        except SlideOpenError as error:
            errors.append(error)
    raise SlideOpenError(_explain(path, names, errors)) from errors[-1]


def _prefer_levels(slide: Slide, config: SlideConfig) -> Slide:
    """Return `slide`, or open it with tiffslide if OpenSlide misses levels (SubIFDs, Motic)."""
    if slide.reader != "openslide" or slide.vendor != "generic-tiff":
        return slide
    if count_levels(slide.path, slide.size) <= len(slide.level_sizes):
        return slide
    try:
        other = _open_tiffslide(slide.path, config)
    except SlideOpenError:
        return slide
    slide.close()
    return other


def _explain(path: Path, names: list[str], errors: list[SlideOpenError]) -> str:
    # Readers that share a library give the same reason.
    reasons = dict.fromkeys(str(error).removeprefix(f"{path}: ") for error in errors)
    return f"{path}: not a slide that {' or '.join(names)} can read: {'; '.join(reasons)}"


if TYPE_CHECKING:
    _direct: type[Slide] = DirectReader
    _openslide: type[Slide] = OpenSlideReader
