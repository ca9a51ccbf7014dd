"""What the marks of one slide say of each place: the later word over the earlier one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from wsiseg.config import LabelConfig
from wsiseg.grid import TileGrid
from wsiseg.labels.cover import join, tile_cover
from wsiseg.labels.mark import Mark, classify

__all__ = ["Layers", "TileLabels", "find_tile", "label_tiles", "stack_layers"]

_RANK = {"": 0, "checked": 1, "reclassified": 2, "deleted": 2, "drawn": 3}
_CORRECTION = 2
"""From this rank on a mark is a person's correction of a map."""


class Layers(NamedTuple):
    """Areas of one slide in raster pixels; shapely geometries, empty where there is none."""

    classes: tuple[Any, ...]
    """Where each class was marked."""
    absent: tuple[Any, ...]
    """Where each class is said not to be."""
    checked: Any
    """Where all there is was marked."""
    ignored: Any
    """Where nothing is to be learned."""
    corrected: Any
    """What of all this corrects a map."""
    points: tuple[tuple[float, float, int, bool], ...]
    """x, y, class, and whether it is a correction."""


class TileLabels(NamedTuple):
    """The tiles of one slide of which anything is known."""

    tiles: NDArray[np.int64]
    """``(N, 2)`` int64: row, column."""
    labels: NDArray[np.float32]
    """``(N, K)`` float32: 1 shows, 0 does not, NaN nobody knows."""
    weights: NDArray[np.float32]
    """``(N,)`` float32: 1, or more for corrections."""


def stack_layers(
    marks: Sequence[Mark], classes: Sequence[str], mapping: Mapping[str, str]
) -> Layers:
    """Lay the marks, in raster pixels, over each other.

    Where two classes were marked in one round, both are there; a correction of a class takes the
    place away from what was said before.
    """
    empty = shapely.Polygon()
    shown, absent = [empty] * len(classes), [empty] * len(classes)
    corrected = empty
    kinds = [(mark, *classify(mark.name, mapping, classes)) for mark in marks]
    areas = [one for one in kinds if one[0].geometry.geom_type in ("Polygon", "MultiPolygon")]
    for rank in sorted(set(_RANK.values())):
        here = [o for o in areas if o[1] == "class" and _RANK[o[0].state] == rank]
        if not here:
            continue
        whole = join([mark.geometry for mark, *_ in here])
        for at, name in enumerate(classes):
            own, gone = (
                join([m.geometry for m, _, n in here if n == name and (m.state == "deleted") == d])
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
    points = [
        (x, y, classes.index(name), _RANK[mark.state] >= _CORRECTION)
        for mark, kind, name in kinds
        if kind == "class" and mark.geometry.geom_type in ("Point", "MultiPoint")
        for x, y in shapely.get_coordinates(mark.geometry).tolist()
    ]
    return Layers(
        tuple(cut[0]), tuple(cut[1]), shapely.difference(checked, ignored), ignored, corrected,
        tuple(points),
    )  # fmt: skip


def label_tiles(
    layers: Layers, grid: TileGrid, tissue: NDArray[np.bool_], config: LabelConfig
) -> TileLabels:
    """What the layers say of each tile with `tissue` ``(rows, cols)``.

    A class shows where it covers enough of a tile (``class_fraction``) or was marked by a point; it
    does not where next to all of the tile was seen (``seen_fraction``) and it covers less; else
    nobody knows. Tiles that hold ignored areas are left out.
    """
    cover = np.stack([tile_cover(shape, grid) for shape in layers.classes], 2)
    seen = join([*layers.classes, layers.checked])
    known = np.stack([tile_cover(_with(seen, absent), grid) for absent in layers.absent], 2)
    shows = cover >= config.class_fraction
    corrected = tile_cover(layers.corrected, grid) >= config.class_fraction
    pointed = np.zeros(tissue.shape, bool)
    for x, y, label, correction in layers.points:
        tile = find_tile(grid, x, y)
        if tile is not None:
            shows[*tile, label] = pointed[tile] = True
            corrected[tile] |= correction
    labels = np.full(shows.shape, np.nan, np.float32)
    labels[known >= config.seen_fraction] = 0
    labels[shows] = 1
    used = (known.max(2) >= config.annotated_fraction) | pointed
    used &= tissue & np.isfinite(labels).any(2)
    used &= tile_cover(layers.ignored, grid) < config.class_fraction
    weights = np.where(corrected, config.corrected_weight, 1.0)
    return TileLabels(
        np.argwhere(used).astype(np.int64), labels[used], weights[used].astype(np.float32)
    )


def _with(seen: Any, absent: Any) -> Any:
    return seen if absent.is_empty else shapely.union(seen, absent)


def find_tile(grid: TileGrid, x: float, y: float) -> tuple[int, int] | None:
    """The tile of a point of the raster; of overlapping ones the last that begins before it."""
    if not (0 <= x < grid.width and 0 <= y < grid.height):
        return None
    # The last tiles may hold points beyond their stride.
    row, col = min(y // grid.stride, grid.rows - 1), min(x // grid.stride, grid.cols - 1)
    return int(row), int(col)
