"""Panels of one size on a sheet: titles, row names, heat colours with their bar."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

__all__ = [
    "GAP",
    "LINE",
    "Pixels",
    "draw_bar",
    "frame",
    "heat",
    "lay_out",
    "overlay",
    "wrap",
]

GAP, LINE = 8, 24
"""Pixels between panels, and of a line of text."""

_FONT = 16
_ACROSS = 5  # more columns would be too small to read where a page shows the whole sheet
_HEAT = np.array(
    [(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], np.float64
)
"""Colours of 0, 0.25, ... 1: even steps of brightness, distinct to colour-blind people too."""
_HEAT_SHARE = 0.55
_BAR = (160, 12)

Pixels = NDArray[np.uint8]


def heat(values: NDArray[np.floating]) -> Pixels:
    """``(H, W)`` in [0, 1] to RGB ``(H, W, 3)``, dark 0 to yellow 1."""
    return np.asarray(_color(values).round().astype(np.uint8))


def overlay(image: Pixels, values: NDArray[np.floating]) -> Pixels:
    """Lay the `heat` of `values` over ``(H, W, 3)`` RGB, which shows through."""
    mixed = _HEAT_SHARE * _color(values) + (1 - _HEAT_SHARE) * image
    return np.asarray(mixed.round().astype(np.uint8))


def frame(panel: Pixels, width: int = 3) -> None:
    """Draw a red border on the panel itself."""
    for edge in (panel[:width], panel[-width:], panel[:, :width], panel[:, -width:]):
        edge[:] = (220, 40, 40)


def lay_out(
    rows: Sequence[Sequence[Pixels]],
    titles: Sequence[str],
    names: Sequence[str] = (),
    foot: int = 0,
) -> Image.Image:
    """Lay out rows of panels on a sheet.

    Parameters
    ----------
    rows
        RGB panels ``(H, W, 3)``, all of one size, one per column.
    titles
        Above each column.
    names
        To the left of each row; if empty, no space is left for them.
    foot
        Pixels left free below.
    """
    height, width = rows[0][0].shape[:2]
    across, down = width + GAP, height + GAP
    left = GAP + max((_measure(name) for name in names), default=0) + (GAP if names else 0)
    size = (left + len(titles) * across, LINE + len(rows) * down + foot)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        pen.text((left + column * across, 3), title, fill="black", font_size=_FONT)
    for row, panels in enumerate(rows):
        if names:
            middle = LINE + row * down + height // 2 - _FONT // 2
            pen.text((GAP, middle), names[row], fill="black", font_size=_FONT)
        for column, panel in enumerate(panels):
            sheet.paste(Image.fromarray(panel), (left + column * across, LINE + row * down))
    return sheet


def wrap(
    rows: Sequence[Sequence[Pixels]],
    titles: Sequence[str],
    names: Sequence[str] = (),
    foot: int = 0,
) -> Image.Image:
    """Lay out rows of panels as `lay_out` does; columns beyond the fifth continue below."""
    parts = []
    for start in range(0, len(titles), _ACROSS):
        columns = slice(start, start + _ACROSS)
        parts.append(lay_out([row[columns] for row in rows], titles[columns], names))
    size = (parts[0].width, sum(part.height for part in parts) + foot)
    sheet, top = Image.new("RGB", size, "white"), 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


def draw_bar(sheet: Image.Image, low: str, high: str) -> None:
    """Draw the scale of heat colours, between its end values, in the last line of the sheet."""
    pen, y = ImageDraw.Draw(sheet), sheet.height - LINE + 4
    pen.text((GAP, y - 4), low, fill="black", font_size=_FONT)
    start = GAP + _measure(low) + 6
    colors = heat(np.linspace(0, 1, _BAR[0])[None].repeat(_BAR[1], 0))
    sheet.paste(Image.fromarray(colors), (start, y))
    pen.text((start + _BAR[0] + 6, y - 4), high, fill="black", font_size=_FONT)


def _color(values: NDArray[np.floating]) -> NDArray[np.float64]:
    steps = np.linspace(0, 1, len(_HEAT))
    return np.stack([np.interp(values, steps, channel) for channel in _HEAT.T], -1)


def _measure(text: str) -> int:
    pen = ImageDraw.Draw(Image.new("L", (1, 1)))
    return int(np.ceil(pen.textlength(text, font_size=_FONT)))
