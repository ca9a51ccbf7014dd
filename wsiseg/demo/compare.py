"""Picture of the demo's result: the slide, its truth and its map side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from wsiseg.annotations import BACKGROUND, Palette
from wsiseg.atomic import write_picture
from wsiseg.demo.layout import Truth
from wsiseg.slide import open_slide
from wsiseg.store import SlideStore

__all__ = ["write_compare"]

_WIDEST = 900  # of one panel, pixels
_HEADER = 56
_FONT = 34  # readable where a page shows the picture at a third of its size
_GAP = 12

Picture = NDArray[np.uint8]


def write_compare(slide: str | Path, store: SlideStore, truth: Truth, path: str | Path) -> None:
    """Write a PNG of the slide, its truth and its map, with a legend of the classes."""
    step = -(-truth.labels.shape[1] // _WIDEST)
    true, palette = truth.labels[::step, ::step], store.palette
    height, width = true.shape
    with open_slide(slide) as opened:
        whole = opened.bounds._replace(x=0, y=0, width=width, height=height)
        pixels = opened.read(whole, truth.mpp * step)
    mapped = store.read_labels(store.grid.box)[::step, ::step]
    panels = [pixels, _paint(true, palette), _paint(mapped, palette)]
    sheet = np.full((height + 2 * _HEADER, 3 * width + 2 * _GAP, 3), 255, np.uint8)
    for number, panel in enumerate(panels):
        left = number * (width + _GAP)
        sheet[_HEADER : _HEADER + height, left : left + width] = panel
    picture = Image.fromarray(sheet)
    _write_legend(picture, palette, width + _GAP)
    write_picture(picture, path, optimize=True)


def _paint(labels: Picture, palette: Palette) -> Picture:
    colors = np.full((BACKGROUND + 1, 3), 240, np.uint8)
    colors[: len(palette)] = palette.colors
    return colors[labels]


def _write_legend(picture: Image.Image, palette: Palette, pitch: int) -> None:
    draw = ImageDraw.Draw(picture)
    for number, title in enumerate(("slide", "truth", "wsiseg")):
        draw.text((number * pitch + 4, 8), title, fill="black", font_size=_FONT)
    x, y = 4.0, picture.height - _HEADER + 12
    for name, color in zip(palette.names, palette.colors, strict=True):
        draw.rectangle((x, y, x + 32, y + 32), fill=color)
        draw.text((x + 44, y - 4), name, fill="black", font_size=_FONT)
        x += 92 + draw.textlength(name, font_size=_FONT)
