"""Compare two runs on the same slides: which tissue changed its class, how much, and where."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsiseg.annotations import BACKGROUND, Palette, tell_models_apart
from wsiseg.atomic import write_picture
from wsiseg.compute import Progress
from wsiseg.errors import DataError, StoreError
from wsiseg.labels import find_stores, name_in_run
from wsiseg.report.legend import draw_legend
from wsiseg.report.overlay import blend_labels, choose_factor, shrink_image, shrink_labels
from wsiseg.store import SlideStore
from wsiseg.table import format_csv
from wsiseg.text import write_text

__all__ = ["Changes", "compare_runs", "format_changes", "write_changes"]

_LOG = logging.getLogger(__name__)
_NAMED = 9  # slides that a warning names

_NOTHING = "nothing"
"""Name in the tables for pixels without a class, unless a class is called so."""
_LONGEST = 1600  # pixels of a picture's longer side, at most


@dataclass(frozen=True)
class Changes:
    """The changes of one slide between two runs."""

    name: str
    """The slide's name in the output folder."""
    before: SlideStore
    after: SlideStore
    names: tuple[str, ...]
    """Classes of both runs, then a name for pixels without a class."""
    pixels: NDArray[np.int64]
    """``(n, n)`` pixels by class before (row) and after (column), where either map has a class."""

    @property
    def share(self) -> float:
        """Share of the tissue that changed its class; NaN without tissue."""
        total = int(self.pixels.sum())
        return 1 - float(np.trace(self.pixels)) / total if total else math.nan

    @property
    def told(self) -> str:
        """`share` in words."""
        if math.isnan(self.share):
            return "no tissue"
        return f"{100 * self.share:.1f} % of the tissue changed"

    @property
    def mm2(self) -> NDArray[np.float64]:
        """`pixels` as areas in mm²."""
        return np.asarray(self.pixels * (self.after.mpp / 1000) ** 2)


def compare_runs(
    before: str | Path, after: str | Path, progress: Progress | None = None
) -> list[Changes]:
    """Compare the maps of two output folders, slide by slide, pixel by pixel.

    With a warning, slides are left out that are in only one of them, were tiled differently or
    whose map is not finished in both. If the maps of one run are of several models, a warning says
    so.

    Raises
    ------
    DataError
        If no slide is left to compare, or names are not unique.
    StoreError
        If a store cannot be opened.
    """
    first, second = _open_stores(before), _open_stores(after)
    common = sorted(first.keys() & second.keys())
    if not common:
        raise DataError(f"{before} and {after} have no slide name in common")
    changes, useless = [], []
    for done, name in enumerate(common, 1):
        try:
            changes.append(_compare(name, first[name], second[name]))
        except (DataError, StoreError) as error:
            useless.append(str(error))
        if progress is not None:
            progress("compare", done, len(common))
    if not changes:
        raise DataError("; ".join(useless))
    alone = [*_name_missing(after, first, second), *_name_missing(before, second, first)]
    for why in (*useless, *alone):
        _LOG.warning("left out: %s", why)
    _warn_of_models(before, {slide.name: slide.before.cam_source for slide in changes})
    _warn_of_models(after, {slide.name: slide.after.cam_source for slide in changes})
    return changes


def _warn_of_models(folder: str | Path, sources: Mapping[str, str]) -> None:
    """Warn if the slides of one run, by name, are of several models."""
    if told := tell_models_apart(sources):
        _LOG.warning("in %s, %s: what changed may be due to that", folder, told)


def _name_missing(
    folder: str | Path, these: Mapping[str, SlideStore], own: Mapping[str, SlideStore]
) -> Iterator[str]:
    """Say which of `these` slides a run does not have, if there are any."""
    names = sorted(these.keys() - own.keys())
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        yield f"{folder} has no {', '.join(names[:_NAMED])}{more}"


def _open_stores(folder: str | Path) -> dict[str, SlideStore]:
    """Open the stores of a run, by the slides' names in it."""
    stores: dict[str, SlideStore] = {}
    for store in map(SlideStore, find_stores([folder])):
        name = name_in_run(store)
        if name in stores:
            raise DataError(
                f"{store.path}: has the same name as {stores[name].path}; compare the two folders "
                f"one by one"
            )
        stores[name] = store
    return stores


def _compare(name: str, before: SlideStore, after: SlideStore) -> Changes:
    if before.grid != after.grid or before.slide["identity"] != after.slide["identity"]:
        raise DataError(
            f"{after.path}: has another raster or slide than {before.path}; compare runs with the "
            f"same slides and tiling"
        )
    for store in (before, after):
        store.finished("stitch")
    shared = dict.fromkeys([*before.palette.names, *after.palette.names])
    names = (*shared, _name_nothing(shared))
    tables = [_renumber(store.palette, names) for store in (before, after)]
    pixels = np.zeros((len(names), len(names)), np.int64)
    for block in range(after.grid.n_blocks):
        box = after.grid.block_box(block)
        a, b = (
            table[store.read_labels(box)]
            for table, store in zip(tables, (before, after), strict=True)
        )
        counts = np.bincount((a * len(names) + b).ravel(), minlength=len(names) ** 2)
        pixels += counts.reshape(pixels.shape)
    pixels[-1, -1] = 0  # glass in both
    return Changes(name, before, after, names, pixels)


def _name_nothing(taken: Collection[str]) -> str:
    """Return a name for pixels without a class that no class has."""
    name = _NOTHING
    while name in taken:
        name = f"({name})"
    return name


def _renumber(palette: Palette, names: Sequence[str]) -> NDArray[np.int64]:
    """Return ``(256,)``: the index in `names` for each label."""
    table = np.full(256, len(names) - 1, np.int64)
    table[: len(palette)] = [names.index(name) for name in palette.names]
    return table


def format_changes(changes: Sequence[Changes]) -> str:
    """Format a line per slide, then the ten largest changes between classes over all slides."""
    lines = [f"{slide.name}: {slide.told}" for slide in changes]
    total: dict[tuple[str, str], float] = {}
    for slide in changes:
        for before, after, mm2 in _list_changes(slide):
            total[before, after] = total.get((before, after), 0) + mm2
    largest = sorted(total.items(), key=lambda item: (-item[1], item[0]))[:10]
    lines += [f"{before} to {after}: {mm2:.3g} mm²" for (before, after), mm2 in largest]
    return "\n".join(lines)


def _list_changes(slide: Changes) -> Iterator[tuple[str, str, float]]:
    """Yield class before, class after and mm² of each change."""
    areas = slide.mm2
    for i, j in np.argwhere(slide.pixels > 0).tolist():
        if i != j:
            yield slide.names[i], slide.names[j], float(areas[i, j])


def write_changes(changes: Sequence[Changes], out: str | Path) -> list[Path]:
    """Write ``changes.csv``, one row per slide and pair of classes, and a picture per slide.

    A picture colours only the tissue that changed, by its new class, with a legend.
    """
    out = Path(out)
    table = [["slide", "before", "after", "mm2", "share_of_tissue"]]
    for slide in changes:
        total, areas, names = max(int(slide.pixels.sum()), 1), slide.mm2, slide.names
        for i, j in np.argwhere(slide.pixels > 0).tolist():
            share = slide.pixels[i, j] / total
            cells = (names[i], names[j], f"{areas[i, j]:.6f}", f"{share:.6f}")
            table.append([slide.name, *cells])
    written = [write_text(format_csv(table), out / "changes.csv")]
    for slide in changes:
        picture, path = Image.fromarray(_draw(slide)), out / f"{slide.name}.jpg"
        written.append(write_picture(picture, path, "JPEG", quality=90, subsampling=0))
    return written


def _draw(slide: Changes) -> NDArray[np.uint8]:
    factor = choose_factor(slide.after, _LONGEST)
    stores = (slide.before, slide.after)
    labels = [shrink_labels(store, factor) for store in stores]
    before, after = (
        _renumber(store.palette, slide.names)[raster]
        for store, raster in zip(stores, labels, strict=True)
    )
    changed = np.where(before != after, labels[1], BACKGROUND).astype(np.uint8)
    palette = slide.after.palette
    picture = blend_labels(shrink_image(slide.after, factor), changed, palette)
    told = slide.told if math.isnan(slide.share) else f"{slide.told}, shown by its new class"
    rows = _measure_gains(slide, palette)
    return draw_legend(picture, palette, rows, slide.name, told, slide.after.mpp * factor)


def _measure_gains(slide: Changes, palette: Palette) -> list[dict[str, Any]]:
    """Return for each class what changed to it, as rows of a legend."""
    areas = slide.mm2
    changed = (areas.sum(0) - np.diag(areas)).tolist()
    whole, gains = float(areas.sum()) or 1.0, dict(zip(slide.names, changed, strict=True))
    return [
        {"class": name, "area_mm2": gains[name], "fraction_of_tissue": gains[name] / whole}
        for name in palette.names
    ]
