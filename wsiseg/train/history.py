"""Reports of training: the losses of every step as a table and as curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from wsiseg.atomic import write_picture
from wsiseg.table import format_csv
from wsiseg.text import write_text

__all__ = ["COLUMNS", "draw_curves", "write_scores", "write_table"]

COLUMNS = ("learning_rate", "total", "classes", "structure", "contrast", "diversity", "recall")
"""Columns of a row of the history; its position is the step."""

_SIZE = (960, 480)
_MARGIN = 48
_FONT = 15
_COLORS = ((0, 0, 0), (0, 114, 178), (0, 158, 115), (213, 94, 0), (204, 121, 167))
"""One per loss, the total first."""

History = Sequence[Sequence[float]]


def write_table(history: History, path: Path, columns: Sequence[str] = COLUMNS) -> None:
    """Write a CSV with one row per step."""
    rows = ([step, *(f"{value:.6g}" for value in row)] for step, row in enumerate(history))
    write_text(format_csv([["step", *columns], *rows]), path)


def write_scores(scores: Sequence[float], measure: str, path: Path) -> None:
    """Write a CSV with one row per epoch: the score that chooses the best, higher is better."""
    rows = ([epoch, f"{score:.6g}"] for epoch, score in enumerate(scores, start=1))
    write_text(format_csv([["epoch", measure], *rows]), path)


def draw_curves(history: History, path: Path, columns: Sequence[str] = COLUMNS) -> None:
    """Draw each loss, as a share of its own largest value, over the steps; a PNG.

    Losses are the columns after the first, the learning rate.
    """
    image = Image.new("RGB", _SIZE, "white")
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = _MARGIN, _MARGIN, _SIZE[0] - _MARGIN, _SIZE[1] - _MARGIN
    draw.line([(left, top), (left, bottom), (right, bottom)], fill=(120, 120, 120))
    draw.text(
        (left, bottom + 8),
        f"{len(history)} steps; each loss over its largest value",
        fill="black",
        font_size=_FONT,
    )
    x, spacing = left, (right - left) // (len(columns) - 1)
    for name, color in zip(columns[1:], _COLORS, strict=False):
        values = np.array([row[columns.index(name)] for row in history], float)
        largest = np.nanmax(values, initial=0)
        text = f"{name}\n{values[0]:.2g} to {values[-1]:.2g}"
        draw.text((x, 6), text, fill=color, font_size=_FONT)
        x += spacing
        if largest > 0 and np.isfinite(values).all():
            across = np.linspace(left, right, len(values))
            down = bottom - (bottom - top) * values / largest
            draw.line(list(zip(across.tolist(), down.tolist(), strict=True)), color, width=2)
    write_picture(image, path)
