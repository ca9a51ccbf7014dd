"""What was labelled: a table by class and slide, and a picture a slide."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from wsiseg.annotations import KNOWN_COLORS
from wsiseg.atomic import open_atomic
from wsiseg.labels import Labelling, SlideLabels
from wsiseg.report.overlay import shrink_image

__all__ = ["COLUMNS", "describe_labels", "draw_labels", "write_labels"]

COLUMNS = ("slide", "class", "regions", "mm2", "windows with", "windows without", "unknown")
"""Of the table: training windows that show the class, that do not, and where nobody knows."""

_LONGEST = 1600
_SPARE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (213, 94, 0), (0, 114, 178))


def describe_labels(labelling: Labelling) -> list[dict[str, object]]:
    """One row a slide and class, with the columns `COLUMNS`."""
    rows: list[dict[str, object]] = []
    for slide in labelling.slides:
        labels = slide.found.labels
        for at, name in enumerate(labelling.classes):
            values = (
                slide.store.path.stem, name, slide.regions[at], round(slide.area_mm2[at], 4),
                int((labels[:, at] == 1).sum()), int((labels[:, at] == 0).sum()),
                int(np.isnan(labels[:, at]).sum()),
            )  # fmt: skip
            rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def write_labels(labelling: Labelling, out: str | Path) -> list[Path]:
    """Write ``labels.csv`` and a picture a labelled slide into a folder; the paths."""
    out = Path(out)
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(describe_labels(labelling))
    written = [out / "labels.csv"]
    with open_atomic(written[0]) as file:
        file.write(text.getvalue().encode())
    for slide in labelling.slides:
        written.append(out / f"{slide.store.path.stem}.png")
        with open_atomic(written[-1]) as file:
            Image.fromarray(draw_labels(slide, labelling.classes)).save(file, "PNG")
    return written


def draw_labels(slide: SlideLabels, classes: Sequence[str]) -> NDArray[np.uint8]:
    """``(H, W, 3)`` uint8: the slide, its marks outlined, each training window as a square.

    The cells of which something is known have the colours of the classes that show in them, side by
    side; they are grey where none does, and tinted faintly where some class is unknown.
    """
    grid, found = slide.store.grid, slide.found
    factor = 2 ** max(0, math.ceil(math.log2(max(grid.height, grid.width) / _LONGEST)))
    page = Image.fromarray(shrink_image(slide.store, factor)).convert("RGBA")
    over = Image.new("RGBA", page.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(over)
    colors = [KNOWN_COLORS.get(n, _SPARE[i % len(_SPARE)]) for i, n in enumerate(classes)]
    side = max(1, round(grid.tile / factor))
    for (y, x), labels, known in zip(
        found.corners.tolist(), found.labels, found.known, strict=True
    ):
        shown = [colors[at] for at in np.flatnonzero(labels == 1)] or [(128, 128, 128)]
        opacity = 120 if np.isfinite(labels).all() else 60
        cells = Image.fromarray(known).resize((side, side), Image.Resampling.NEAREST)
        left, top = round(x / factor), round(y / factor)
        for at, color in enumerate(shown):
            near, far = (side * number // len(shown) for number in (at, at + 1))
            stripe = cells.crop((near, 0, far, side))
            over.paste((*color, opacity), (left + near, top), stripe)
        draw.rectangle((left, top, left + side, top + side), outline=(*shown[0], 255))
    for shape, color in zip(slide.layers.classes, colors, strict=True):
        for part in shapely.get_parts(shape):
            if part.geom_type == "Polygon":
                line = (shapely.get_coordinates(part.exterior) / factor).ravel().tolist()
                draw.line(line, fill=(*color, 255), width=2)
    _draw_names(draw, classes, colors)
    return np.asarray(Image.alpha_composite(page, over).convert("RGB"))


def _draw_names(
    draw: ImageDraw.ImageDraw, classes: Sequence[str], colors: Sequence[tuple[int, int, int]]
) -> None:
    for at, (name, color) in enumerate(zip(classes, colors, strict=True)):
        top = 4 + 14 * at
        draw.rectangle((4, top, 14, top + 10), fill=(*color, 255))
        draw.text((18, top - 1), name, fill=(0, 0, 0, 255))
