"""The legend below a picture: slide name, classes with their areas, scale bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from wsiseg.annotations import Palette
from wsiseg.text import escape

__all__ = ["choose_bar", "draw_legend"]

_INK, _PALE, _LINE = (32, 36, 42), (104, 110, 118), (216, 220, 224)
_MIN_WIDTH = 900  # a narrow slide still gets a legible panel
_DESIGN_WIDTH = 1300  # the lengths below are for this page width, and scale with it
_MARGIN, _COLUMN, _ROW, _HEAD = 24, 300, 62, 90


def draw_legend(
    picture: NDArray[np.uint8],
    palette: Palette,
    rows: Sequence[dict[str, Any]],
    title: str,
    subtitle: str,
    mpp: float,
) -> NDArray[np.uint8]:
    """Return `picture` ``(H, W, 3)`` uint8 with a panel below it.

    `rows` are those of `measure_classes`; `mpp` is µm per pixel of the picture.
    """
    height, width = picture.shape[:2]
    page_width = max(_MIN_WIDTH, width)
    scale = max(1.0, page_width / _DESIGN_WIDTH)
    columns = max(1, int((page_width / scale - _MARGIN) // _COLUMN))
    panel = round((_HEAD + -(-len(rows) // columns) * _ROW) * scale)
    page = Image.new("RGB", (page_width, height + panel), "white")
    page.paste(Image.fromarray(picture), ((page_width - width) // 2, 0))
    pen = _Pen(ImageDraw.Draw(page), height, scale)
    pen.draw.line([(0, height), (page_width, height)], fill=_LINE, width=2)
    _draw_title(pen, title, subtitle, page_width / scale * 0.7)
    _draw_bar(pen, page_width, mpp)
    for number, row in enumerate(rows):
        at = _MARGIN + number % columns * _COLUMN, _HEAD - 8 + number // columns * _ROW
        _draw_class(pen, at, palette.colors[number], row)
    return np.asarray(page)


def choose_bar(mpp: float, width: int) -> tuple[float, int]:
    """Choose a round length of at most a fifth of `width` pixels: in mm, and in pixels."""
    longest = width / 5 * mpp / 1000
    power = 10.0 ** np.floor(np.log10(longest))
    # A rounded logarithm may put `power` just above `longest`; 0.5 is for that case.
    length = max(step * power for step in (0.5, 1, 2, 5) if step * power <= longest)
    return float(length), max(1, round(length * 1000 / mpp))


@dataclass(frozen=True)
class _Pen:
    """Draws in design lengths, measured from the panel's top left corner."""

    draw: ImageDraw.ImageDraw
    top: int
    scale: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        return x * self.scale, self.top + y * self.scale

    def font(self, size: float) -> Any:
        return ImageFont.load_default(round(size * self.scale))

    def text(
        self, x: float, y: float, text: str, size: float, fill: tuple[int, int, int] = _INK
    ) -> None:
        """Draw `text`; Pillow's default font lacks ``²``, so it is drawn as a small raised 2."""
        for number, part in enumerate(text.split("²")):
            if number:
                self.draw.text(self.at(x, y - 1), "2", fill=fill, font=self.font(size * 0.62))
                x += size * 0.5
            self.draw.text(self.at(x, y), part, fill=fill, font=self.font(size))
            x += self.length(part, size)

    def length(self, text: str, size: float) -> float:
        return self.draw.textlength(text, font=self.font(size)) / self.scale

    def shorten(self, text: str, size: float, width: float) -> str:
        """Cut `text` so that it fits `width`."""
        if self.length(text, size) <= width:
            return text
        while text and self.length(text + "...", size) > width:
            text = text[:-1]
        return text + "..."


def _draw_bar(pen: _Pen, page_width: int, mpp: float) -> None:
    length, pixels = choose_bar(mpp, page_width)
    right = page_width - _MARGIN * pen.scale
    top = pen.top + 46 * pen.scale
    pen.draw.rectangle([(right - pixels, top), (right, top + 7 * pen.scale)], fill=_INK)
    middle = right - pixels / 2, top - 6 * pen.scale
    pen.draw.text(middle, f"{length:g} mm", fill=_INK, font=pen.font(20), anchor="mb")


def _draw_title(pen: _Pen, title: str, subtitle: str, width: float) -> None:
    title = " ".join(escape(title).split())  # the name may hold line breaks
    pen.text(_MARGIN, 16, pen.shorten(title, 26, width), 26)
    pen.text(_MARGIN, 48, subtitle, 19, _PALE)


def _draw_class(
    pen: _Pen, at: tuple[float, float], color: tuple[int, int, int], row: dict[str, Any]
) -> None:
    x, y = at
    dark = tuple(int(part * 0.6) for part in color)
    box = [pen.at(x, y + 4), pen.at(x + 38, y + 42)]
    pen.draw.rounded_rectangle(box, 6 * pen.scale, fill=color, outline=dark, width=2)
    pen.text(x + 52, y, pen.shorten(str(row["class"]), 21, _COLUMN - 70), 21)
    figures = f"{row['area_mm2']:.2f} mm²"
    if row["fraction_of_tissue"] > 0:
        figures += f"   {row['fraction_of_tissue']:.1%} of tissue"
    pen.text(x + 52, y + 26, figures, 17, _PALE)
