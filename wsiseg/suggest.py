"""What to label next: places of which a map is unsure, and that are unlike each other."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsiseg.annotations import Annotations, Palette, Region
from wsiseg.atomic import open_atomic, put_aside
from wsiseg.compute import Progress
from wsiseg.config import LabelConfig
from wsiseg.errors import DataError
from wsiseg.labels import find_stores, label_slides, name_in_run
from wsiseg.qupath import write_geojson, write_scripts
from wsiseg.store import SlideStore
from wsiseg.tissue import tile_fractions

__all__ = ["Suggestion", "suggest_places", "write_suggestions"]

_FRAME = Palette(("Region*",), ((0, 0, 180),))
"""QuPath draws it as a mere frame, and no reader of labels takes it for one."""
_MOST = 20_000
"""Candidates that are compared with each other, the most unsure ones."""
_TISSUE = 0.5
"""A place is mostly tissue: nobody learns from a rim of glass."""
_MOST_A_SLIDE = 2.0
"""No slide has more than this many times its even share."""


@dataclass(frozen=True)
class Suggestion:
    """One tile worth labelling."""

    store: SlideStore
    row: int
    col: int
    uncertainty: float
    """From 0, sure of one class everywhere, to 1, undecided between two on all of it; glass counts
    as sure."""
    predicted: str
    """The class that the map has there."""


class _Candidates(NamedTuple):
    """Tiles of all slides."""

    places: NDArray[np.int64]
    """``(N, 3)``: number of the store, row, column."""
    unsure: NDArray[np.float32]
    """``(N,)``: `Suggestion.uncertainty`."""
    views: NDArray[np.float32]
    """``(N, D)``: what the model makes of each."""
    free: NDArray[np.bool_]
    """``(N,)``: those that may be suggested."""
    taken: NDArray[np.bool_]
    """``(N,)``: those that somebody labelled."""


def suggest_places(
    slides: Sequence[str | Path],
    count: int = 50,
    labels: Sequence[str | Path] = (),
    *,
    per_slide: int | None = None,
    config: LabelConfig | None = None,
    progress: Progress | None = None,
) -> list[Suggestion]:
    """Choose tiles to label, the most useful first.

    One after the other, that tile is taken whose uncertainty times its distance to all that was
    taken or labelled before is greatest: uncertainty alone would take fifty of one border.

    Parameters
    ----------
    slides
        Output folders, stores or folders of stores, predicted with one model.
    count
        How many.
    labels
        Label files or folders: what is labelled already is not suggested.
    per_slide
        Most of one slide; None for twice the even share.

    Raises
    ------
    DataError
        If the slides were predicted with different classes, or no tile is left to suggest.
    StoreError
        If a slide was not predicted.
    """
    stores = [SlideStore(path) for path in find_stores(slides)]
    palettes = {store.path: store.cam_palette.names for store in stores}
    if len(set(palettes.values())) > 1:
        raise DataError(
            f"the slides were predicted with {len(set(palettes.values()))} sets of classes; "
            f"predict all with one model first"
        )
    taken = _find_labelled(stores, labels, config or LabelConfig())
    parts = []
    for at, store in enumerate(stores):
        parts.append(_look(at, store, taken))
        if progress is not None:
            progress("suggest", at + 1, len(stores))
    found = _Candidates(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    if not found.free.any():
        raise DataError("no tile is left to suggest: all that hold tissue are labelled")
    even = -(-count // len(stores))
    most = int(np.ceil(_MOST_A_SLIDE * even)) if per_slide is None else per_slide
    chosen = _choose(found, count, most)
    names = next(iter(palettes.values()))
    classes = len(names)
    return [
        Suggestion(
            stores[int(found.places[i, 0])], int(found.places[i, 1]), int(found.places[i, 2]),
            float(found.unsure[i]), names[int(found.views[i, :classes].argmax())],
        )
        for i in chosen
    ]  # fmt: skip


def _find_labelled(
    stores: Sequence[SlideStore], labels: Sequence[str | Path], config: LabelConfig
) -> set[tuple[int, int, int]]:
    """Number of the store, row and column of every labelled tile."""
    if not labels:
        return set()
    found = label_slides(labels, [store.path for store in stores], None, config)
    numbers = {store.path: at for at, store in enumerate(stores)}
    return {
        (numbers[slide.store.path], row, col)
        for slide in found.slides
        for row, col in slide.found.tiles(slide.store.grid)
    }


def _look(at: int, store: SlideStore, taken: set[tuple[int, int, int]]) -> _Candidates:
    """The tiles of one slide, block by block."""
    grid, calibration = store.grid, store.cam_calibration
    mask, mask_mpp, _ = store.read_tissue()
    tissue = tile_fractions(mask, mask_mpp, grid, store.mpp)
    places, unsure, views = [], [], []
    for block in range(grid.n_blocks):
        tiles = list(grid.block_tiles(block))
        if not tiles:
            continue
        rows, cols = ([tile[axis] for tile in tiles] for axis in (0, 1))
        span = slice(min(rows), max(rows) + 1), slice(min(cols), max(cols) + 1)
        cams, _ = store.read_cams(*span)
        known = np.argwhere(np.isfinite(cams[:, :, 0, 0, 0]))
        if not len(known):
            continue
        shares = _shares(cams[known[:, 0], known[:, 1]].astype(np.float32), calibration)
        ordered = np.sort(shares, 1)
        unsure.append(1 - (ordered[:, -1] - ordered[:, -2]).mean((1, 2)))
        views.append(np.concatenate([shares.mean((2, 3)), shares.std((2, 3))], 1))
        places.append(known + np.array((min(rows), min(cols))))
    if not places:
        count = 2 * store.cam_channels
        return _Candidates(
            np.empty((0, 3), np.int64), np.empty(0, np.float32),
            np.empty((0, count), np.float32), np.empty(0, bool), np.empty(0, bool),
        )  # fmt: skip
    where = np.insert(np.concatenate(places), 0, at, 1)
    labelled = np.array([tuple(place) in taken for place in where.tolist()])
    share = tissue[where[:, 1], where[:, 2]].astype(np.float32)
    free = (share >= _TISSUE) & ~labelled
    # Of glass any map is unsure, and where half a tile is glass, half of it cannot be labelled.
    return _Candidates(where, np.concatenate(unsure) * share, np.concatenate(views), free, labelled)


def _shares(
    cams: NDArray[np.float32], calibration: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """``(N, C, h, w)`` softmax over channels of the CAMs, as logits to believe where that is known.

    A single class competes with nothing: it stands beside its own absence.
    """
    if calibration is not None:
        cams = cams * calibration[:, 0, None, None] + calibration[:, 1, None, None]
    if cams.shape[1] == 1:
        cams = np.concatenate([cams, np.zeros_like(cams)], 1)
    powers = np.exp(cams - cams.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def _choose(found: _Candidates, count: int, most: int) -> list[int]:
    """Numbers of the tiles to take, in order; ties go to the first."""
    free = np.flatnonzero(found.free)
    free = free[np.argsort(-found.unsure[free], kind="stable")][:_MOST]
    scale = found.views[free].std(0) + 1e-6
    views = found.views / scale
    near = np.full(len(free), np.inf, np.float32)
    for i in np.flatnonzero(found.taken):
        near = np.minimum(near, _distance(views[free], views[i]))
    if not np.isfinite(near).all():
        near = _distance(views[free], views[free].mean(0))
    left = {int(at): most for at in np.unique(found.places[free, 0])}
    chosen: list[int] = []
    while len(chosen) < count and np.isfinite(near).any():
        worth = np.where(np.isfinite(near), (found.unsure[free] + 1e-3) * near, -1)
        best = int(worth.argmax())
        chosen.append(int(free[best]))
        slide = int(found.places[free[best], 0])
        left[slide] -= 1
        near = np.minimum(near, _distance(views[free], views[free[best]]))
        near[best] = -np.inf
        if left[slide] == 0:
            near[found.places[free, 0] == slide] = -np.inf
    return chosen


def _distance(views: NDArray[np.float32], one: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.sqrt(((views - one) ** 2).sum(1)))


# -- files ---------------------------------------------------------------------------------------


def write_suggestions(places: Sequence[Suggestion], out: str | Path) -> list[Path]:
    """Write a frame a place for QuPath, the script that imports them, and a table; the paths.

    ``geojson/<slide>.geojson`` holds frames of the class ``Region*``: give one a class, or draw in
    it, and it is a label. Files of an earlier call are kept as ``.old``.
    """
    out = Path(out)
    written = [_write_table(places, out / "suggestions.csv")]
    stores = {place.store.path: place.store for place in places}
    for path, store in stores.items():
        own = [place for place in places if place.store.path == path]
        target = out / "geojson" / f"{name_in_run(store)}.geojson"
        if target.exists():
            put_aside(target)
        written.append(write_geojson(_frame(store, own), target))
    return [*written, *write_scripts(out, ["import.groovy"])]


def _frame(store: SlideStore, places: Sequence[Suggestion]) -> Annotations:
    x, y = store.slide["mpp"]
    left, top, *_ = store.slide["bounds"]
    regions = []
    for place in places:
        box = store.grid.tile_box(place.row, place.col)
        corners = ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))
        ring = [(box.x + box.width * i, box.y + box.height * j) for i, j in corners]
        area = box.width * box.height
        regions.append(Region(0, np.array(ring, np.int32), (), area, 1 - place.uncertainty))
    return Annotations(
        str(store.slide["name"]), _FRAME, tuple(regions), (store.mpp / x, store.mpp / y),
        store.mpp, origin=(int(left), int(top)), exact=True,
    )  # fmt: skip


def _write_table(places: Sequence[Suggestion], path: Path) -> Path:
    if path.exists():
        put_aside(path)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["rank", "slide", "row", "col", "x", "y", "uncertainty", "predicted"])
    table.writerows(_rows(places))
    with open_atomic(path) as file:
        file.write(text.getvalue().encode())
    return path


def _rows(places: Sequence[Suggestion]) -> Iterator[list[object]]:
    """x and y are the tile's corner as QuPath shows it."""
    for rank, place in enumerate(places, 1):
        scale = [place.store.mpp / value for value in place.store.slide["mpp"]]
        box = place.store.grid.tile_box(place.row, place.col)
        origin = place.store.slide["bounds"][:2]
        x, y = (round(v * s - o, 2) for v, s, o in zip((box.x, box.y), scale, origin, strict=True))
        yield [
            rank, name_in_run(place.store), place.row, place.col, x, y,
            f"{place.uncertainty:.4f}", place.predicted,
        ]  # fmt: skip
