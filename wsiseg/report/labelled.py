"""Report on labels: a table by slide and class, and a picture per slide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from wsiseg.annotations import choose_colors
from wsiseg.atomic import write_picture
from wsiseg.labels import Labelling, SlideLabels, name_in_run
from wsiseg.report.overlay import choose_factor, shrink_image
from wsiseg.table import format_csv
from wsiseg.text import write_text

__all__ = ["COLUMNS", "describe_labels", "draw_labels", "write_labels"]

COLUMNS = ("slide", "class", "regions", "mm2", "windows with", "windows without", "unknown")
"""Columns of the table; windows are training windows that do, do not or may show the class."""

_LONGEST = 1600  # pixels of a picture's longer side, at most


def describe_labels(labelling: Labelling) -> list[dict[str, object]]:
    """Return one row per slide and class, with the columns `COLUMNS`."""
    rows: list[dict[str, object]] = []
    for slide in labelling.slides:
        labels, areas = slide.found.labels, slide.area_mm2
        for index, name in enumerate(labelling.classes):
            values = (
                name_in_run(slide.store), name, slide.regions[index], round(areas[index], 4),
                int((labels[:, index] == 1).sum()), int((labels[:, index] == 0).sum()),
                int(np.isnan(labels[:, index]).sum()),
            )  # fmt: skip
            rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def write_labels(labelling: Labelling, out: str | Path) -> list[Path]:
    """Write ``labels.csv`` and a picture per labelled slide into a folder; return the paths."""
    out = Path(out)
    rows = [[row[name] for name in COLUMNS] for row in describe_labels(labelling)]
    written = [write_text(format_csv([COLUMNS, *rows]), out / "labels.csv")]
    for slide in labelling.slides:
        picture = Image.fromarray(draw_labels(slide, labelling.classes))
        written.append(write_picture(picture, out / f"{name_in_run(slide.store)}.png"))
    return written


def draw_labels(slide: SlideLabels, classes: Sequence[str]) -> NDArray[np.uint8]:
    """Draw ``(H, W, 3)`` uint8: the slide, outlines of its marks, a square per training window.

    A window's labelled cells are striped in the colours of its classes, grey if it shows none, and
    paler if some class is unknown.
    """
    windows = slide.found
    factor = choose_factor(slide.store, _LONGEST)
    page = Image.fromarray(shrink_image(slide.store, factor)).convert("RGBA")
    layer = Image.new("RGBA", page.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    colors = choose_colors(classes)
    side = max(1, round(slide.store.grid.tile / factor))
    for (y, x), labels, known in zip(
        windows.corners.tolist(), windows.labels, windows.known, strict=True
    ):
        shown = [colors[index] for index in np.flatnonzero(labels == 1)] or [(128, 128, 128)]
        opacity = 120 if np.isfinite(labels).all() else 60
        cells = Image.fromarray(known).resize((side, side), Image.Resampling.NEAREST)
        left, top = round(x / factor), round(y / factor)
        for number, color in enumerate(shown):
            start, end = (side * edge // len(shown) for edge in (number, number + 1))
            stripe = cells.crop((start, 0, end, side))
            layer.paste((*color, opacity), (left + start, top), stripe)
        draw.rectangle((left, top, left + side, top + side), outline=(*shown[0], 255))
    for shape, color in zip(slide.layers.classes, colors, strict=True):
        for part in shapely.get_parts(shape):
            if part.geom_type == "Polygon":
                line = (shapely.get_coordinates(part.exterior) / factor).ravel().tolist()
                draw.line(line, fill=(*color, 255), width=2)
    _draw_names(draw, classes, colors)
    return np.asarray(Image.alpha_composite(page, layer).convert("RGB"))


def _draw_names(
    draw: ImageDraw.ImageDraw, classes: Sequence[str], colors: Sequence[tuple[int, int, int]]
) -> None:
    for row, (name, color) in enumerate(zip(classes, colors, strict=True)):
        top = 4 + 14 * row
        draw.rectangle((4, top, 14, top + 10), fill=(*color, 255))
        draw.text((18, top - 1), name, fill=(0, 0, 0, 255))
