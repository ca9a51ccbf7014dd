"""Combine the marks of one slide; later corrections override earlier labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from wsiseg.config import LabelConfig
from wsiseg.geometry import Box
from wsiseg.grid import TileGrid
from wsiseg.labels.cover import join
from wsiseg.labels.mark import Mark, classify
from wsiseg.labels.placement import CELLS, clip, draw_cells, intersect, place_windows

__all__ = [
    "Layers",
    "WindowLabels",
    "find_tile",
    "gather_windows",
    "label_windows",
    "stack_layers",
]

_RANK = {"": 0, "checked": 1, "reclassified": 2, "deleted": 2, "drawn": 3}
_CORRECTION = 2
"""Marks of this rank and above are corrections of a map."""


class Layers(NamedTuple):
    """Areas of one slide in raster pixels; shapely geometries, empty where there is none."""

    classes: tuple[Any, ...]
    """Where each class was marked."""
    absent: tuple[Any, ...]
    """Where each class is known to be absent."""
    checked: Any
    """Where everything present was marked."""
    ignored: Any
    """Areas to leave out of learning."""
    corrected: Any
    """Areas of corrections of a map."""
    points: tuple[tuple[float, float, int, bool], ...]
    """x, y, class, and whether it is a correction."""


class WindowLabels(NamedTuple):
    """The training windows of one slide, each of tile size, and their labels."""

    corners: NDArray[np.int64]
    """``(N, 2)`` int64: y, x of the first raster pixel."""
    labels: NDArray[np.float32]
    """``(N, K)`` float32: 1 present, 0 absent, NaN unknown."""
    weights: NDArray[np.float32]
    """``(N,)`` float32: the known share of the window, weighted up for corrections."""
    known: NDArray[np.bool_]
    """``(N, CELLS, CELLS)`` bool: the cells that the labels apply to."""
    corrected: NDArray[np.bool_]
    """``(N,)`` bool: whether the labels come from a correction."""

    def tiles(self, grid: TileGrid) -> set[tuple[int, int]]:
        """Return row and column of the tiles nearest to windows that are at least half known."""
        corners, which = np.unique(self.corners, axis=0, return_inverse=True)
        shares = np.bincount(which.ravel(), self.known.mean((1, 2)), len(corners))
        nearest = np.round(corners[shares >= 0.5] / grid.stride).astype(int)
        return _unique(nearest, grid)

    def seen(self, grid: TileGrid) -> set[tuple[int, int]]:
        """Return row and column of the tiles nearest to the middle of what each window knows.

        So a tile in which somebody drew counts, however small the area is.
        """
        share = self.known.mean((1, 2))
        middle = np.stack([_middle(self.known.mean(axis)) for axis in (2, 1)], 1)
        corners = self.corners + (middle - 0.5) * grid.tile
        return _unique(np.round(corners[share > 0] / grid.stride).astype(int), grid)


def _middle(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean place ``(N,)``, from 0 to 1, along each profile ``(N, CELLS)``."""
    places = (np.arange(shares.shape[1]) + 0.5) / shares.shape[1]
    return np.asarray(shares @ places / np.maximum(shares.sum(1), np.finfo(float).tiny))


def _unique(tiles: NDArray[np.int64], grid: TileGrid) -> set[tuple[int, int]]:
    last = (grid.rows - 1, grid.cols - 1)
    return {(int(row), int(col)) for row, col in np.clip(tiles, 0, last)}


class _Statement(NamedTuple):
    """An area within which the same classes are known."""

    area: Any
    about: Sequence[int]
    """The known classes: each is absent where it is not marked."""
    corrected: bool


class _Row(NamedTuple):
    """One training window; the fields are those of `WindowLabels`."""

    corner: tuple[int, int]
    label: NDArray[np.float32]
    weight: float
    known: NDArray[np.bool_]
    corrected: bool


def stack_layers(
    marks: Sequence[Mark], classes: Sequence[str], mapping: Mapping[str, str]
) -> Layers:
    """Combine marks in raster pixels.

    Classes that were marked in the same round may overlap; a correction replaces earlier marks in
    its area, points included. What lies in an ignored area is left out.
    """
    empty = shapely.Polygon()
    shown, absent = [empty] * len(classes), [empty] * len(classes)
    corrected = empty
    replaced: dict[int, Any] = {}
    kinds = [(mark, *classify(mark.name, mapping, classes)) for mark in marks]
    areas = [one for one in kinds if one[0].geometry.geom_type in ("Polygon", "MultiPolygon")]
    for rank in sorted(set(_RANK.values())):
        current = [o for o in areas if o[1] == "class" and _RANK[o[0].state] == rank]
        if not current:
            continue
        whole = replaced[rank] = join([mark.geometry for mark, *_ in current])
        for at, name in enumerate(classes):
            own, gone = (
                join(
                    [m.geometry for m, _, n in current if n == name and (m.state == "deleted") == d]
                )
                for d in (False, True)
            )
            shown[at] = shapely.union(shapely.difference(shown[at], whole), own)
            absent[at] = shapely.union(shapely.difference(absent[at], whole), gone)
        if rank >= _CORRECTION:
            corrected = shapely.union(corrected, whole)
    ignored, checked = (
        join([mark.geometry for mark, kind, _ in areas if kind == wanted])
        for wanted in ("ignored", "checked")
    )
    cut = [[shapely.difference(shape, ignored) for shape in side] for side in (shown, absent)]
    hidden = {
        rank: shapely.union_all([ignored, *(area for r, area in replaced.items() if r > rank)])
        for rank in _RANK.values()
    }
    shapely.prepare(list(hidden.values()))
    points = [
        (x, y, classes.index(name), _RANK[mark.state] >= _CORRECTION)
        for mark, kind, name in kinds
        if kind == "class" and mark.geometry.geom_type in ("Point", "MultiPoint")
        for x, y in _keep_points(mark, hidden[_RANK[mark.state]])
    ]
    return Layers(
        tuple(cut[0]), tuple(cut[1]), shapely.difference(checked, ignored), ignored, corrected,
        tuple(points),
    )  # fmt: skip


def _keep_points(mark: Mark, hidden: Any) -> list[list[float]]:
    """Return x, y of a mark's points outside of an area."""
    places = shapely.get_coordinates(mark.geometry)
    kept: list[list[float]] = places[~shapely.intersects_xy(hidden, *places.T)].tolist()
    return kept


def label_windows(
    layers: Layers, grid: TileGrid, tissue: NDArray[np.bool_], config: LabelConfig
) -> WindowLabels:
    """Label training windows on all labelled areas that have `tissue` ``(rows, cols)``.

    A class is present in a window if it covers enough of its known area (``class_fraction``), else
    absent. For a deleted region only its own class is known. Points label the tile of the grid that
    contains them; other classes stay unknown there.
    """
    rows = [
        row
        for statement in _make_statements(layers)
        for boxes in place_windows(statement.area, grid, config.annotated_fraction)
        for row in _label_row(boxes, statement, layers, config)
        if any(tissue[tile] for tile in grid.touching(Box(*row.corner[::-1], *[grid.tile] * 2)))
    ]
    rows += _label_points(layers, grid, tissue, config)
    rows.sort(key=lambda row: row.corner)
    return gather_windows(rows, len(layers.classes))


def gather_windows(rows: Sequence[Any], classes: int) -> WindowLabels:
    """Convert rows ``(corner, label, weight, known, corrected)`` to arrays."""
    corners, labels, weights, known, corrected = zip(*rows, strict=True) if rows else ([],) * 5
    return WindowLabels(
        np.array(corners, np.int64).reshape(-1, 2),
        np.array(labels, np.float32).reshape(len(rows), classes),
        np.array(weights, np.float32),
        np.array(known, bool).reshape(-1, CELLS, CELLS),
        np.array(corrected, bool),
    )


def _make_statements(layers: Layers) -> list[_Statement]:
    every = range(len(layers.classes))
    seen = join([*layers.classes, layers.checked])
    return [
        _Statement(shapely.difference(seen, layers.corrected), every, False),
        _Statement(shapely.intersection(seen, layers.corrected), every, True),
        *(
            _Statement(shapely.difference(absent, seen), [at], True)
            for at, absent in enumerate(layers.absent)
        ),
    ]


def _label_row(
    boxes: Sequence[Box], statement: _Statement, layers: Layers, config: LabelConfig
) -> Iterator[_Row]:
    """Label a row of windows from one statement."""
    frame = (
        min(box.x for box in boxes), min(box.y for box in boxes),
        max(box.right for box in boxes), max(box.bottom for box in boxes),
    )  # fmt: skip
    # Clip to the row, then to its windows: outlines may have very many points.
    near = clip(statement.area, *frame)
    shown = {at: clip(layers.classes[at], *frame) for at in statement.about}
    for box in boxes:
        area = clip(near, box.x, box.y, box.right, box.bottom)
        share = area.area / box.width**2
        whole = share > 1 - 1e-6
        known = np.ones((CELLS, CELLS), bool) if whole else draw_cells(area, box)
        inside = {at: intersect(shape, area) for at, shape in shown.items()}
        label = np.full(len(layers.classes), np.nan, np.float32)
        for at, shape in inside.items():
            label[at] = shape.area >= config.class_fraction * area.area
        parts = _take_apart(known, label, inside, area.area, box, config.class_fraction)
        factor = config.corrected_weight if statement.corrected else 1
        for cells, own in parts:
            weight = (1.0 if whole else share) * float(cells.sum() / known.sum())
            yield _Row((box.y, box.x), own, weight * factor, cells, statement.corrected)


def _take_apart(
    known: NDArray[np.bool_], label: NDArray[np.float32], inside: Mapping[int, Any],
    area: float, box: Box, least: float,
) -> list[tuple[NDArray[np.bool_], NDArray[np.float32]]]:  # fmt: skip
    """The `known` cells of a window by the classes that were marked in them, with the labels there.

    Who outlined two classes in one tile said which is where, and not only that both are in it.
    Nothing is known of the cells of a class that covers too little of the window to show in it.
    """
    marked = [at for at, shape in inside.items() if shape.area]
    alone = len(marked) == 1 and inside[marked[0]].area > (1 - 1e-6) * area
    if alone or not (label == 1).any():
        return [(known, label)]
    cells = np.array([draw_cells(inside[at], box)[known] for at in marked])
    alike, which = np.unique(cells, axis=1, return_inverse=True)
    parts = []
    for number, column in enumerate(alike.T):
        present = {at for at, there in zip(marked, column, strict=True) if there}
        mine = which == number
        if any(label[at] != 1 for at in present) or (
            not present and mine.sum() < least * mine.size
        ):
            continue
        own = label.copy()
        own[[at for at in marked if at not in present]] = 0
        part = known.copy()
        part[known] = mine
        parts.append((part, own))
    return parts or [(known, label)]


def _label_points(
    layers: Layers, grid: TileGrid, tissue: NDArray[np.bool_], config: LabelConfig
) -> Iterator[_Row]:
    by_tile: dict[tuple[int, int], tuple[NDArray[np.float32], list[bool]]] = {}
    for x, y, label, correction in layers.points:
        tile = find_tile(grid, x, y)
        if tile is not None and tissue[tile]:
            unknown = np.full(len(layers.classes), np.nan, np.float32)
            labels, corrections = by_tile.setdefault(tile, (unknown, []))
            labels[label] = 1
            corrections.append(correction)
    for (row, col), (labels, corrections) in by_tile.items():
        box, corrected = grid.tile_box(row, col), any(corrections)
        weight = config.corrected_weight if corrected else 1.0
        yield _Row((box.y, box.x), labels, weight, np.ones((CELLS, CELLS), bool), corrected)


def find_tile(grid: TileGrid, x: float, y: float) -> tuple[int, int] | None:
    """Return the tile that contains a raster point; of overlapping tiles, the last one."""
    if not (0 <= x < grid.width and 0 <= y < grid.height):
        return None
    # The last tiles may hold points beyond their stride.
    row, col = min(y // grid.stride, grid.rows - 1), min(x // grid.stride, grid.cols - 1)
    return int(row), int(col)
