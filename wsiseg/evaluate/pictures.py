"""Patches as pictures: image, truth and prediction side by side, and the map of every class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from wsiseg.annotations import BACKGROUND, Palette
from wsiseg.atomic import open_atomic
from wsiseg.evaluate.run import Scored

__all__ = ["draw_maps", "draw_predictions", "write_labels", "write_picture"]

_GAP, _LINE = 8, 24
_OUTSIDE = (240, 240, 240)
_HEAT = np.array(
    [(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], np.float64
)
"""Colours of 0, 0.25, ... 1: even in brightness, and told apart by the colour-blind."""
_HEAT_SHARE = 0.55

Pixels = NDArray[np.uint8]


def draw_predictions(scored: Sequence[Scored], palette: Palette) -> Image.Image:
    """One row a patch, as the paper's Figure 2: image, truth, prediction; colours named below."""
    titles = ["image", "truth", f"prediction ({scored[0].protocol})"]
    colors = _label_colors(palette)
    rows = [[one.image, colors[one.truth], colors[one.labels]] for one in scored]
    sheet = _tile(rows, titles, foot=_LINE)
    pen, x, y = ImageDraw.Draw(sheet), float(_GAP), sheet.height - _LINE + 3
    for name, color in (*zip(palette.names, palette.colors, strict=True), ("none", _OUTSIDE)):
        pen.rectangle((x, y, x + 12, y + 12), fill=color, outline=(120, 120, 120))
        pen.text((x + 17, y - 1), name, fill="black", font_size=12)
        x += 30 + pen.textlength(name, font_size=12)
    return sheet


def draw_maps(scored: Sequence[Scored], palette: Palette) -> Image.Image:
    """One row a patch: the image, then every class's map laid over it, dark 0 to yellow 1.

    Maps are those before the gate: each class's own best place, whether or not it is let through;
    a frame marks the classes that are.
    """
    rows = []
    for one in scored:
        panels = [one.image, *(_overlay(one.image, values) for values in one.maps)]
        for panel, gate in zip(panels[1:], one.gates, strict=True):
            if gate:
                _frame(panel)
        rows.append(panels)
    return _tile(rows, ["image", *palette.names])


def write_picture(picture: Image.Image, path: str | Path) -> Path:
    """Write a PNG that appears whole or not at all."""
    with open_atomic(path) as file:
        picture.save(file, "png")
    return Path(path)


def write_labels(scored: Scored, palette: Palette, folder: str | Path) -> Path:
    """Write a patch's labels as a palette PNG, numbered as the data set's masks: K is outside."""
    labels = scored.labels.copy()
    labels[labels == BACKGROUND] = len(palette)
    picture = Image.fromarray(labels).convert("P")
    picture.putpalette([part for color in (*palette.colors, (255, 255, 255)) for part in color])
    return write_picture(picture, Path(folder) / f"{Path(scored.name).stem}.png")


def _label_colors(palette: Palette) -> Pixels:
    colors = np.full((BACKGROUND + 1, 3), _OUTSIDE, np.uint8)
    colors[: len(palette)] = palette.colors
    return colors


def _overlay(image: Pixels, values: NDArray[np.float32]) -> Pixels:
    steps = np.linspace(0, 1, len(_HEAT))
    heat = np.stack([np.interp(values, steps, channel) for channel in _HEAT.T], -1)
    mixed = _HEAT_SHARE * heat + (1 - _HEAT_SHARE) * image
    return np.asarray(mixed.round().astype(np.uint8))


def _frame(panel: Pixels, width: int = 3) -> None:
    for edge in (panel[:width], panel[-width:], panel[:, :width], panel[:, -width:]):
        edge[:] = (220, 40, 40)


def _tile(rows: Sequence[Sequence[Pixels]], titles: Sequence[str], foot: int = 0) -> Image.Image:
    """Panels of one size as a sheet with a title above each column."""
    height, width = rows[0][0].shape[:2]
    across, down = width + _GAP, height + _GAP
    size = (_GAP + len(titles) * across, _LINE + len(rows) * down + foot)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        pen.text((_GAP + column * across, 5), title, fill="black", font_size=12)
    for row, panels in enumerate(rows):
        for column, panel in enumerate(panels):
            sheet.paste(Image.fromarray(panel), (_GAP + column * across, _LINE + row * down))
    return sheet
