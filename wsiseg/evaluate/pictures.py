"""Scored patches as pictures: image, truth and prediction, and every class's map; labels as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from wsiseg.annotations import BACKGROUND, Palette
from wsiseg.atomic import write_picture
from wsiseg.evaluate.run import Scored
from wsiseg.evaluate.sheet import GAP, LINE, Pixels, frame, lay_out, overlay

__all__ = ["draw_maps", "draw_predictions", "to_mask", "write_labels"]

_OUTSIDE = (240, 240, 240)


def draw_predictions(scored: Sequence[Scored], palette: Palette) -> Image.Image:
    """Draw one row per patch, like the paper's Figure 2: image, truth, prediction and legend."""
    titles = ["image", "truth", f"prediction ({scored[0].protocol})"]
    colors = _label_colors(palette)
    rows = [[one.image, colors[one.truth], colors[one.labels]] for one in scored]
    sheet = lay_out(rows, titles, foot=LINE)
    pen, x, y = ImageDraw.Draw(sheet), float(GAP), sheet.height - LINE + 3
    for name, color in (*zip(palette.names, palette.colors, strict=True), ("none", _OUTSIDE)):
        pen.rectangle((x, y, x + 12, y + 12), fill=color, outline=(120, 120, 120))
        pen.text((x + 17, y - 1), name, fill="black", font_size=12)
        x += 30 + pen.textlength(name, font_size=12)
    return sheet


def draw_maps(scored: Sequence[Scored], palette: Palette) -> Image.Image:
    """Draw one row per patch: the image, then each class's map over it, dark 0 to yellow 1.

    Maps are ungated, each class on its own scale, whether or not it is let through; a frame marks
    the classes that are.
    """
    rows = []
    for one in scored:
        panels = [one.image, *(overlay(one.image, values) for values in one.maps)]
        for panel, gate in zip(panels[1:], one.gates, strict=True):
            if gate:
                frame(panel)
        rows.append(panels)
    return lay_out(rows, ["image", *palette.names])


def write_labels(scored: Scored, palette: Palette, folder: str | Path) -> Path:
    """Write a patch's labels as a palette PNG, numbered as the data set's masks: K is outside."""
    picture = to_mask(scored.labels, palette)
    return write_picture(picture, Path(folder) / f"{Path(scored.name).stem}.png")


def to_mask(labels: NDArray[np.uint8], palette: Palette) -> Image.Image:
    """Turn ``(H, W)`` labels into a palette picture, like BCSS-WSSS masks: background is K."""
    numbers = np.where(labels == BACKGROUND, len(palette), labels).astype(np.uint8)
    picture = Image.fromarray(numbers).convert("P")
    picture.putpalette([part for color in (*palette.colors, (255, 255, 255)) for part in color])
    return picture


def _label_colors(palette: Palette) -> Pixels:
    colors = np.full((BACKGROUND + 1, 3), _OUTSIDE, np.uint8)
    colors[: len(palette)] = palette.colors
    return colors
