"""Suggest what to label next: places where a map is unsure, and that differ from each other."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsiseg.annotations import Annotations, Palette, Region, agree_on_classes, agree_on_model
from wsiseg.atomic import put_aside
from wsiseg.compute import Progress
from wsiseg.config import LabelConfig
from wsiseg.errors import ConfigError, DataError
from wsiseg.labels import find_stores, label_slides, name_in_run
from wsiseg.places import PLACES, Place, write_places
from wsiseg.qupath import write_geojson, write_scripts
from wsiseg.store import SlideStore
from wsiseg.table import refuse
from wsiseg.tissue import tile_fractions

__all__ = ["Suggestion", "map_of", "suggest_places", "write_suggestions"]

_LOG = logging.getLogger(__name__)

_FRAME = Palette(("Region*",), ((0, 0, 180),))
"""A class that QuPath draws as an outline only, and that is not read as a label."""
_MAX_CANDIDATES = 20_000
"""Candidates that are compared with each other: the most uncertain ones."""
_MIN_TISSUE = 0.5
"""Smallest share of tissue in a suggested tile: a rim of glass teaches nothing."""
_MAX_SHARE = 2.0
"""No slide gets more than this many times an equal share."""


@dataclass(frozen=True)
class Suggestion:
    """One tile worth labelling."""

    store: SlideStore
    row: int
    col: int
    uncertainty: float
    """From 0, certain of one class everywhere, to 1, undecided between two everywhere; glass counts
    as certain."""
    predicted: str
    """The class that the map shows there."""


class _Candidates(NamedTuple):
    """Tiles of all slides."""

    places: NDArray[np.int64]
    """``(N, 3)``: number of the store, row, column."""
    uncertainty: NDArray[np.float32]
    """``(N,)``: `Suggestion.uncertainty`."""
    features: NDArray[np.float32]
    """``(N, D)``: mean and deviation of each channel's share."""
    eligible: NDArray[np.bool_]
    """``(N,)``: those that may be suggested."""
    labelled: NDArray[np.bool_]
    """``(N,)``: those that are already labelled."""


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

    Each time, the tile is chosen whose uncertainty times its distance to the nearest chosen or
    labelled tile is largest: uncertainty alone would choose fifty tiles of one border.

    Parameters
    ----------
    slides
        Output folders, stores or folders of stores, predicted with one model.
    count
        Number of tiles.
    labels
        Label files or folders: tiles that they label are not suggested.
    per_slide
        Largest number for one slide; None for twice an equal share.

    Raises
    ------
    ConfigError
        If `per_slide` is less than 1.
    DataError
        If the slides were predicted by different models, a label file cannot be used, or no tile
        is left to suggest.
    StoreError
        If a slide was not predicted, or not as its tiles are now.
    """
    if per_slide is not None and per_slide < 1:
        raise ConfigError(f"per_slide is {per_slide}; it must be at least 1")
    stores = [SlideStore(path) for path in find_stores(slides)]
    maps = {store.path: store.cam_palette.names for store in stores}
    names = agree_on_classes(maps, "suggest places on")
    for store in stores:
        store.finished("predict")
    agree_on_model({store.path: store.cam_source for store in stores}, "suggest places on")
    labelled = _find_labelled(stores, labels, config or LabelConfig())
    parts = []
    for index, store in enumerate(stores):
        parts.append(_collect(index, store, labelled))
        if progress is not None:
            progress("suggest", index + 1, len(stores))
    tiles = _Candidates(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    if not tiles.eligible.any():
        raise DataError("no tile is left to suggest: all that hold tissue are labelled")
    equal_share = -(-count // len(stores))
    limit = int(np.ceil(_MAX_SHARE * equal_share)) if per_slide is None else per_slide
    return [
        Suggestion(
            stores[int(tiles.places[i, 0])], int(tiles.places[i, 1]), int(tiles.places[i, 2]),
            float(tiles.uncertainty[i]), names[int(tiles.features[i, : len(names)].argmax())],
        )
        for i in _choose(tiles, count, limit)
    ]  # fmt: skip


def _find_labelled(
    stores: Sequence[SlideStore], labels: Sequence[str | Path], config: LabelConfig
) -> set[tuple[int, int, int]]:
    """Return the number of the store, row and column of every tile in which labels lie."""
    if not labels:
        return set()
    labelled = label_slides(labels, [store.path for store in stores], None, config)
    refuse("suggest", labelled.problems, "labels or stores")
    for unmatched in labelled.unmatched:
        _LOG.warning("%s; what it labels may be suggested", unmatched)
    numbers = {store.path: index for index, store in enumerate(stores)}
    return {
        (numbers[slide.store.path], row, col)
        for slide in labelled.slides
        for row, col in slide.found.seen(slide.store.grid)
    }


def _collect(index: int, store: SlideStore, labelled: set[tuple[int, int, int]]) -> _Candidates:
    """Collect the predicted tiles of one slide, block by block."""
    grid, calibration = store.grid, store.cam_calibration
    mask, mask_mpp, _ = store.read_tissue()
    tissue = tile_fractions(mask, mask_mpp, grid, store.mpp)
    places, uncertainty, features = [], [], []
    for block in range(grid.n_blocks):
        tiles = list(grid.block_tiles(block))
        if not tiles:
            continue
        rows, cols = ([tile[axis] for tile in tiles] for axis in (0, 1))
        span = slice(min(rows), max(rows) + 1), slice(min(cols), max(cols) + 1)
        cams, _ = store.read_cams(*span)
        predicted = np.argwhere(np.isfinite(cams[:, :, 0, 0, 0]))
        if not len(predicted):
            continue
        shares = _shares(cams[predicted[:, 0], predicted[:, 1]].astype(np.float32), calibration)
        ordered = np.sort(shares, 1)
        uncertainty.append(1 - (ordered[:, -1] - ordered[:, -2]).mean((1, 2)))
        features.append(np.concatenate([shares.mean((2, 3)), shares.std((2, 3))], 1))
        places.append(predicted + np.array((min(rows), min(cols))))
    if not places:
        count = 2 * store.cam_channels
        return _Candidates(
            np.empty((0, 3), np.int64), np.empty(0, np.float32),
            np.empty((0, count), np.float32), np.empty(0, bool), np.empty(0, bool),
        )  # fmt: skip
    where = np.insert(np.concatenate(places), 0, index, 1)
    is_labelled = np.array([tuple(place) in labelled for place in where.tolist()])
    share = tissue[where[:, 1], where[:, 2]].astype(np.float32)
    # Every map is uncertain on glass, and the glass part of a tile cannot be labelled.
    return _Candidates(
        where, np.concatenate(uncertainty) * share, np.concatenate(features),
        (share >= _MIN_TISSUE) & ~is_labelled, is_labelled,
    )  # fmt: skip


def _shares(
    cams: NDArray[np.float32], calibration: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """Return the softmax over channels of the CAMs, ``(N, C, h, w)``, calibrated where possible.

    A single class has no competitor, so it competes with its own absence.
    """
    if calibration is not None:
        cams = cams * calibration[:, 0, None, None] + calibration[:, 1, None, None]
    if cams.shape[1] == 1:
        cams = np.concatenate([cams, np.zeros_like(cams)], 1)
    exponentials = np.exp(cams - cams.max(1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(1, keepdims=True))


def _choose(tiles: _Candidates, count: int, limit: int) -> list[int]:
    """Return the indices of the tiles to suggest, in order, at most `limit` per slide.

    Ties go to the first.
    """
    candidates = np.flatnonzero(tiles.eligible)
    order = np.argsort(-tiles.uncertainty[candidates], kind="stable")
    candidates = candidates[order][:_MAX_CANDIDATES]
    features = tiles.features / (tiles.features[candidates].std(0) + 1e-6)
    own, uncertainty = features[candidates], tiles.uncertainty[candidates]
    slides = tiles.places[candidates, 0]
    # Distance to the nearest chosen or labelled tile; -inf for tiles that are ruled out.
    distances = np.full(len(candidates), np.inf, np.float32)
    for i in np.flatnonzero(tiles.labelled):
        distances = np.minimum(distances, _distances(own, features[i]))
    if not np.isfinite(distances).all():
        distances = _distances(own, own.mean(0))
    remaining = {int(slide): limit for slide in np.unique(slides)}
    chosen: list[int] = []
    while len(chosen) < count and np.isfinite(distances).any():
        scores = np.where(np.isfinite(distances), (uncertainty + 1e-3) * distances, -1)
        best = int(scores.argmax())
        chosen.append(int(candidates[best]))
        slide = int(slides[best])
        remaining[slide] -= 1
        distances = np.minimum(distances, _distances(own, own[best]))
        distances[best] = -np.inf
        if remaining[slide] == 0:
            distances[slides == slide] = -np.inf
    return chosen


def _distances(features: NDArray[np.float32], one: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.sqrt(((features - one) ** 2).sum(1)))


# -- files ---------------------------------------------------------------------------------------


def write_suggestions(places: Sequence[Suggestion], out: str | Path) -> list[Path]:
    """Write the table of places, frames for QuPath and the import script; return the paths.

    `wsiseg.places.read_places` reads the table. ``geojson/<slide>.geojson`` holds frames of class
    ``Region*``: a frame becomes a label when it is given a class or drawn in. Files of an earlier
    call are kept as ``.old``.
    """
    out = Path(out)
    table = out / PLACES
    _keep_former(table)
    ranked = [_place(rank, place) for rank, place in enumerate(places, 1)]
    written = [write_places(ranked, table)]
    stores = {place.store.path: place.store for place in places}
    for path, store in stores.items():
        own = [place for place in places if place.store.path == path]
        target = out / "geojson" / f"{name_in_run(store)}.geojson"
        _keep_former(target)
        written.append(write_geojson(_frame(store, own), target))
    return [*written, *write_scripts(out, ["import.groovy"])]


def _keep_former(path: Path) -> None:
    """Put an earlier file aside and say so: a person may have drawn in it."""
    if path.exists():
        _LOG.warning("%s: the earlier one is kept as %s", path, put_aside(path).name)


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


def _place(rank: int, place: Suggestion) -> Place:
    """Return the row of the table for a tile."""
    store = place.store
    across, down = (store.mpp / value for value in store.slide["mpp"])
    left, top, *_ = store.slide["bounds"]
    box = store.grid.tile_box(place.row, place.col)
    return Place(
        rank, name_in_run(store), place.row, place.col,
        round(box.x * across - left, 2), round(box.y * down - top, 2),
        round(box.width * across, 2), round(box.height * down, 2),
        round(place.uncertainty, 4), place.predicted, map_of(store),
    )  # fmt: skip


def map_of(store: SlideStore) -> str:
    """Return what the model's answers in a store are known by, to tell other maps from it."""
    digest = store.planned("predict")
    return (store.marked("predict") if digest is None else digest)[:16]
