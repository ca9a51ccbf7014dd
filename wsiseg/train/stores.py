"""Windows of slides as training data: stores, and the labels that files give them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from wsiseg.cases import find_case
from wsiseg.config import LabelConfig, digest_of
from wsiseg.geometry import Box
from wsiseg.labels import SlideLabels, gather_labels, gather_windows, label_slides
from wsiseg.store import SlideStore
from wsiseg.table import refuse

__all__ = ["StoreTiles", "gather_tiles", "load_tiles"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoreTiles:
    """Windows of one or more stores, as large as a tile, as a `PatchSource`."""

    stores: tuple[SlideStore, ...]
    windows: NDArray[np.int64]
    """``(N, 3)`` int64: number of the store, y and x of the first pixel of its raster."""
    labels: NDArray[np.float32]
    """``(N, K)`` float32: 1 where the class is present, 0 where not, NaN where unknown."""
    weights: NDArray[np.float32]
    """``(N,)`` float32: weight of each window."""
    cells: NDArray[np.bool_]
    """``(N, c, c)`` bool: the cells of each window that its labels describe."""
    corrected: NDArray[np.bool_]
    """``(N,)`` bool: whether its labels come from a correction."""

    def __len__(self) -> int:
        return len(self.windows)

    def pick(self, which: NDArray[np.bool_]) -> StoreTiles:
        """Select the windows where `which` ``(N,)`` is true."""
        return StoreTiles(
            self.stores, self.windows[which], self.labels[which], self.weights[which],
            self.cells[which], self.corrected[which],
        )  # fmt: skip

    @property
    def known(self) -> NDArray[np.bool_] | None:
        """The cells; None if all of every window is known."""
        return None if self.cells.all() else self.cells

    @property
    def side(self) -> int:
        """Side of every window in pixels."""
        return self.stores[0].grid.tile

    @property
    def mpp(self) -> float:
        """µm/px of the windows; the median where the stores differ a little."""
        return median(store.mpp for store in self.stores)

    @cached_property
    def identity(self) -> str:
        """Hash of the stores' pixels, the windows, their labels, weights and known cells."""
        pixels = [store.finished("tile") for store in self.stores]
        numbers = (self.windows, self.labels, self.weights, np.packbits(self.cells))
        return digest_of(pixels, *(values.tolist() for values in numbers))

    @property
    def cases(self) -> list[str]:
        """The patient of a TCGA slide, else the slide."""
        slides = [str(store.slide["name"]) for store in self.stores]
        known = [find_case(name) or Path(name).stem for name in slides]
        return [known[store] for store in self.windows[:, 0].tolist()]

    def name(self, index: int) -> str:
        """Slide, and the window's centre in level-0 pixels as QuPath shows them."""
        at, *corner = self.windows[index].tolist()
        store = self.stores[at]
        x, y = (
            round((low + self.side / 2) * store.mpp / mpp - origin)
            for low, mpp, origin in zip(
                corner[::-1], store.slide["mpp"], store.slide["bounds"], strict=False
            )
        )
        return f"{store.path.stem} around ({x}, {y})"

    def read(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """``(B, side, side, 3)`` uint8 RGB, read from the stores on demand."""
        chosen, side = self.windows[list(indices)], self.side
        out = np.empty((len(chosen), side, side, 3), np.uint8)
        for at in np.unique(chosen[:, 0]):
            rows = chosen[:, 0] == at
            boxes = [Box(x, y, side, side) for y, x in chosen[rows, 1:].tolist()]
            out[rows] = self.stores[at].read_windows(boxes)
        return out


def load_tiles(
    stores: Sequence[str | Path],
    labels: str | Path | Sequence[str | Path],
    classes: Sequence[str],
    config: LabelConfig | None = None,
) -> StoreTiles:
    """Label the tiles of stores, and check everything before training starts.

    Parameters
    ----------
    stores
        ``.zarr`` stores, or folders of them.
    labels
        What `label_slides` reads: QuPath's GeoJSON, XML of ImageScope or ASAP, tables of regions.
        Or a table of tiles with the columns ``slide`` (or ``store``), then ``row,col`` of the tile
        or ``x,y`` of a level-0 pixel in it (as QuPath shows it, unless ``config.origin`` says
        otherwise), then one 0/1 column per class or ``labels`` of class names separated by ``;``.
    classes
        Class names in label order.
    config
        What counts as labelled; None for the defaults.

    Raises
    ------
    DataError
        If anything is wrong; lists every problem: stores that are unfinished or unlike each other,
        files of no slide, unknown classes, tiles outside or without tissue, tiles given twice,
        classes that no tile shows. What is not a label, such as detections and broken features, is
        reported in the log.
    """
    labelling = label_slides(labels, stores, classes, config)
    problems = [*labelling.problems, *labelling.unmatched]
    tiles = gather_tiles(labelling.slides)
    gather_labels(tiles.labels.tolist(), classes, problems, "tile")
    refuse(_name(labels), problems, "labels or stores")
    for note in (*labelling.notes, *labelling.advise()):
        _LOG.warning("%s", note)
    return tiles


def gather_tiles(slides: Sequence[SlideLabels]) -> StoreTiles:
    """Gather the training windows of slides of a `Labelling`."""
    count = len(slides[0].regions) if slides else 0
    labels = [gather_windows([], count), *(slide.found for slide in slides)]
    corners, *parts = (np.concatenate(arrays) for arrays in zip(*labels, strict=True))
    numbers = np.repeat(np.arange(len(slides)), [len(one.labels) for one in labels[1:]])
    windows = np.column_stack([numbers, corners]).astype(np.int64)
    return StoreTiles(tuple(slide.store for slide in slides), windows, *parts)


def _name(labels: str | Path | Sequence[str | Path]) -> str:
    return ", ".join(map(str, [labels] if isinstance(labels, str | Path) else labels))
