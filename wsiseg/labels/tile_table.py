"""Read labels from a table of tiles: slide,row,col or slide,x,y, and the classes present."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsiseg.config import LabelConfig
from wsiseg.labels.cover import place_of
from wsiseg.labels.layers import find_tile
from wsiseg.labels.stores import Names
from wsiseg.labels.table import (
    Label,
    LabelRow,
    SeenLabels,
    name_classes,
    read_label_table,
)
from wsiseg.store import SlideStore
from wsiseg.table import to_number

__all__ = ["name_tile_classes", "read_tile_table"]

_KEYS = [(name, *place) for name in ("slide", "store") for place in (("row", "col"), ("x", "y"))]

_Tile = tuple[int, int]


def read_tile_table(
    path: Path,
    stores: Sequence[SlideStore],
    names: Names,
    tissue: Sequence[NDArray[np.bool_]],
    classes: Sequence[str],
    config: LabelConfig,
    problems: list[str],
) -> Iterator[tuple[int, _Tile, Label]]:
    """Yield number of the store, row and column of the tile, and label of each line."""
    seen, wrong = SeenLabels(), list[str]()
    for row in read_label_table(path, _KEYS, classes, wrong):
        named = row.keys.get("slide", row.keys.get("store", ""))
        at = names.find(named)
        if at is None:
            wrong.append(f"{row.where}: {names.explain(named)}")
            continue
        tile = _locate(row, stores[at], config, wrong)
        if tile is None:
            continue
        if not tissue[at][tile]:
            wrong.append(f"{row.where}: tile {tile} of {named} holds no tissue")
        elif seen.add((at, tile), row, f"tile {tile} of {named}", wrong):
            yield at, tile, row.label
    problems += [f"{path} {one}" for one in wrong]


def name_tile_classes(path: Path) -> list[str]:
    """List the classes that a table of tiles names."""
    return name_classes(path, _KEYS)


def _locate(
    row: LabelRow, store: SlideStore, config: LabelConfig, problems: list[str]
) -> _Tile | None:
    """Return the tile that a line refers to."""
    grid, by_index = store.grid, "row" in row.keys
    names = ("row", "col") if by_index else ("x", "y")
    first, second = (to_number(row.keys[name], row.separator) for name in names)
    tile: _Tile | None = None
    if by_index and first.is_integer() and second.is_integer():
        inside = 0 <= first < grid.rows and 0 <= second < grid.cols
        tile = (int(first), int(second)) if inside else None
    elif not by_index and np.isfinite((first, second)).all():
        origin, scale = place_of(store, config)
        x, y = ((v + o) / s for v, o, s in zip((first, second), origin, scale, strict=True))
        tile = find_tile(grid, x, y)
    else:
        kind = "whole numbers" if by_index else "numbers"
        given = ", ".join(f"{name} = {row.keys[name]!r}" for name in names)
        problems.append(f"{row.where}: {given} are not {kind}")
        return None
    if tile is None:
        given = ", ".join(f"{name} = {row.keys[name]}" for name in names)
        problems.append(
            f"{row.where}: {given} is outside {store.path.stem}, which has {grid.rows} rows and "
            f"{grid.cols} columns of tiles"
        )
    return tile
