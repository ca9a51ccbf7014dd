"""A folder of tiles labelled by slide, and its split into folds that share no slide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsiseg.errors import DataError
from wsiseg.image_files import read_image
from wsiseg.labels.table import SeenLabels, read_label_table
from wsiseg.table import refuse
from wsiseg.train.encoder.pictures import LabelledTiles

__all__ = ["TileSet", "read_tile_set", "split_slides"]


class TileSet(NamedTuple):
    """All tiles of a folder."""

    tiles: LabelledTiles
    paths: tuple[Path, ...]
    slides: tuple[str, ...]
    """Names of the slides, by number."""


def read_tile_set(folder: str | Path, classes: Sequence[str]) -> TileSet:
    """Read ``labels.csv`` and the images that it names, all of one size.

    Its columns are ``image`` (from the folder), ``slide``, and 0 or 1 for each class; others are
    not used.

    Raises
    ------
    DataError
        If the table or an image is missing, a column or a value is wrong, a tile is given twice.
    """
    folder, problems = Path(folder), list[str]()
    table, seen = folder / "labels.csv", SeenLabels()
    rows = [
        row for row in read_label_table(table, [("image", "slide")], classes, problems, flags=True)
        if seen.add(row.keys["image"], row, row.keys["image"], problems)
    ]  # fmt: skip
    refuse(table, problems, "labelled tiles")
    paths = tuple(folder / row.keys["image"] for row in rows)
    try:
        pixels = np.stack([read_image(path) for path in paths])
    except (OSError, ValueError) as error:
        raise DataError(f"{table}: is not a table of labelled tiles ({error!r})") from error
    labels = np.array([row.label for row in rows], np.float32)
    names = sorted({row.keys["slide"] for row in rows})
    number = {name: at for at, name in enumerate(names)}
    slides = np.array([number[row.keys["slide"]] for row in rows])
    return TileSet(LabelledTiles(pixels, labels, slides), paths, tuple(names))


def split_slides(
    labels: NDArray[np.float32], slides: NDArray[np.int64], groups: Sequence[str], folds: int = 5
) -> NDArray[np.int64]:
    """Return the fold ``(S,)`` of each slide; classes and tiles are spread as evenly as possible.

    Parameters
    ----------
    labels
        ``(N, K)``: 1 where the class is present.
    slides
        ``(N,)``: number of each tile's slide.
    groups
        ``(S,)``: slides of one group, such as a patient's, go to one fold.
    """
    members: dict[str, list[int]] = {}
    for slide, group in enumerate(groups):
        members.setdefault(group, []).append(slide)
    shown = {name: labels[np.isin(slides, own)].sum(0) for name, own in members.items()}
    sizes = {name: np.isin(slides, own).sum() for name, own in members.items()}
    total, fold = np.maximum(labels.sum(0), 1), np.zeros(len(groups), np.int64)
    have, count = np.zeros((folds, labels.shape[1])), np.zeros(folds)
    # Groups that hold most of a class come first, as they have the least choice.
    for name in sorted(members, key=lambda name: -(shown[name] / total).max()):
        costs = [
            _imbalance(have, count, at, shown[name], sizes[name], total) for at in range(folds)
        ]
        best = int(np.argmin(costs))
        have[best] += shown[name]
        count[best] += sizes[name]
        fold[members[name]] = best
    return fold


def _imbalance(
    have: NDArray[np.float64], count: NDArray[np.float64], at: int, shown: NDArray[np.float32],
    size: int, total: NDArray[np.float32],
) -> float:  # fmt: skip
    have, count = have.copy(), count.copy()
    have[at] += shown
    count[at] += size
    return float(((have / total) ** 2).sum() + 2 * ((count / count.sum()) ** 2).sum())
