"""Slides: open one with any reader, read any box of it at any µm/px."""

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
from wsiseg.slide.files import SLIDE_SUFFIXES, find_slides, is_slide
from wsiseg.slide.mpp import resolve_mpp
from wsiseg.slide.openslide import OpenSlideReader
from wsiseg.slide.tiffslide import TiffSlideReader

__all__ = [
    "READERS",
    "SLIDE_SUFFIXES",
    "ArraySlide",
    "PyramidSlide",
    "Slide",
    "find_slides",
    "is_slide",
    "open_slide",
    "resolve_mpp",
]

READERS: dict[str, Callable[[Path, SlideConfig], Slide]] = {
    "direct": DirectReader,
    "openslide": OpenSlideReader,
    "tiffslide": TiffSlideReader,
}
"""Readers by name, in the order in which `auto` tries them."""

_DEFAULT = SlideConfig()


def open_slide(path: str | os.PathLike[str], config: SlideConfig = _DEFAULT) -> Slide:
    """Open a slide file; use it as a context manager, or close it.

    Parameters
    ----------
    path
        The file.
    config
        Reader and µm/px; ``reader="auto"`` takes the first of `READERS` that opens the file.

    Raises
    ------
    SlideOpenError
        If the file is missing, or no reader opens it; the message says what each of them said.
    MppError
        If the µm/px are missing or absurd, and `config` does not give them.
    """
    path = Path(path)
    if not path.is_file():
        raise SlideOpenError(f"{path}: {_why_no_file(path)}")
    names: list[str] = list(READERS) if config.reader == "auto" else [config.reader]
    refusals: list[SlideOpenError] = []
    for name in names:
        try:
            return READERS[name](path, config)
        except SlideOpenError as error:
            refusals.append(error)
    raise SlideOpenError(_explain(path, names, refusals)) from refusals[-1]


def _why_no_file(path: Path) -> str:
    if path.is_dir():
        return "is a folder"
    if path.is_symlink():
        return f"is a link to {os.readlink(path)}, which does not exist"
    return "no such file"


def _explain(path: Path, names: list[str], refusals: list[SlideOpenError]) -> str:
    # Readers that share a library say the same.
    said = "; ".join(dict.fromkeys(str(error).removeprefix(f"{path}: ") for error in refusals))
    return f"{path}: not a slide that {' or '.join(names)} can read: {said}"


if TYPE_CHECKING:
    _direct: type[Slide] = DirectReader
    _openslide: type[Slide] = OpenSlideReader
    _tiffslide: type[Slide] = TiffSlideReader
