"""Two runs on the same slides compared: which tissue changed its class, how much, and where."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsiseg.annotations import BACKGROUND, Palette
from wsiseg.atomic import open_atomic
from wsiseg.compute import Progress
from wsiseg.errors import DataError
from wsiseg.labels import find_stores
from wsiseg.report.overlay import blend_labels, shrink_image, shrink_labels
from wsiseg.store import SlideStore

__all__ = ["Changes", "compare_runs", "format_changes", "write_changes"]

_NOTHING = "nothing"
"""What a map shows where it shows no class."""
_LONGEST = 1600


@dataclass(frozen=True)
class Changes:
    """One slide in two runs."""

    before: SlideStore
    after: SlideStore
    names: tuple[str, ...]
    """Classes of both, then `_NOTHING`."""
    pixels: NDArray[np.int64]
    """``(n, n)``: by class before (row) and after, over what is tissue in either."""

    @property
    def share(self) -> float:
        """Share of the tissue that changed; NaN if there is none."""
        total = int(self.pixels.sum())
        return 1 - float(np.trace(self.pixels)) / total if total else math.nan

    @property
    def mm2(self) -> NDArray[np.float64]:
        """The pixels as areas."""
        return np.asarray(self.pixels * (self.after.mpp / 1000) ** 2)


def compare_runs(
    before: str | Path, after: str | Path, progress: Progress | None = None
) -> list[Changes]:
    """Compare the maps of two output folders, slide by slide, pixel by pixel.

    Slides that only one of them has are left out.

    Raises
    ------
    DataError
        If they have no slide in common, or one was tiled differently.
    StoreError
        If a map is not finished.
    """
    first, second = (
        {path.stem: SlideStore(path) for path in find_stores([folder])}
        for folder in (before, after)
    )
    common = sorted(first.keys() & second.keys())
    if not common:
        raise DataError(f"{before} and {after} have no slide of one name")
    found = []
    for done, name in enumerate(common, 1):
        found.append(_compare(first[name], second[name]))
        if progress is not None:
            progress("compare", done, len(common))
    return found


def _compare(before: SlideStore, after: SlideStore) -> Changes:
    if before.grid != after.grid or before.slide["identity"] != after.slide["identity"]:
        raise DataError(
            f"{after.path}: has another raster or slide than {before.path}; compare runs that "
            f"tiled alike"
        )
    for store in (before, after):
        store.finished("stitch")
    shared = dict.fromkeys([*before.palette.names, *after.palette.names, _NOTHING])
    names = (*(name for name in shared if name != _NOTHING), _NOTHING)
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
    return Changes(before, after, names, pixels)


def _renumber(palette: Palette, names: Sequence[str]) -> NDArray[np.int64]:
    """``(256,)``: the place in `names` of each label."""
    table = np.full(256, len(names) - 1, np.int64)
    table[: len(palette)] = [names.index(name) for name in palette.names]
    return table


def format_changes(found: Sequence[Changes]) -> str:
    """A line a slide, then the largest changes of class to class in all."""
    lines = [
        f"{one.after.path.stem}: {100 * one.share:.1f} % of the tissue changed" for one in found
    ]
    total: dict[tuple[str, str], float] = {}
    for one in found:
        for before, after, mm2 in _moves(one):
            total[before, after] = total.get((before, after), 0) + mm2
    largest = sorted(total.items(), key=lambda item: (-item[1], item[0]))[:10]
    lines += [f"{before} to {after}: {mm2:.3g} mm²" for (before, after), mm2 in largest]
    return "\n".join(lines)


def _moves(one: Changes) -> Iterator[tuple[str, str, float]]:
    areas = one.mm2
    for i, j in np.argwhere(one.pixels > 0).tolist():
        if i != j:
            yield one.names[i], one.names[j], float(areas[i, j])


def write_changes(found: Sequence[Changes], out: str | Path) -> list[Path]:
    """Write ``changes.csv``, a row a slide and pair of classes, and a picture a slide.

    A picture shows the tissue that changed in the colour that it has now, and nothing else.
    """
    out = Path(out)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["slide", "before", "after", "mm2", "share_of_tissue"])
    for one in found:
        total = max(int(one.pixels.sum()), 1)
        for i, j in np.argwhere(one.pixels > 0).tolist():
            share = one.pixels[i, j] / total
            cells = (one.names[i], one.names[j], f"{one.mm2[i, j]:.6f}", f"{share:.6f}")
            table.writerow([one.after.path.stem, *cells])
    written = [out / "changes.csv"]
    with open_atomic(written[0]) as file:
        file.write(text.getvalue().encode())
    for one in found:
        written.append(out / f"{one.after.path.stem}.jpg")
        with open_atomic(written[-1]) as file:
            Image.fromarray(_draw(one)).save(file, "JPEG", quality=90, subsampling=0)
    return written


def _draw(one: Changes) -> NDArray[np.uint8]:
    grid = one.after.grid
    factor = 2 ** max(0, math.ceil(math.log2(max(grid.height, grid.width) / _LONGEST)))
    labels = [shrink_labels(store, factor) for store in (one.before, one.after)]
    before, after = (
        _renumber(store.palette, one.names)[raster]
        for store, raster in zip((one.before, one.after), labels, strict=True)
    )
    shown = np.where(before != after, labels[1], BACKGROUND).astype(np.uint8)
    return blend_labels(shrink_image(one.after, factor), shown, one.after.palette)
