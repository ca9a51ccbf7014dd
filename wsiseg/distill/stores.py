"""Finished maps of slides as training data, with labels and confidence from their stores."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from wsiseg.annotations import BACKGROUND, UNSURE, Palette, tell_models_apart
from wsiseg.cases import find_case
from wsiseg.config import digest_of
from wsiseg.distill.labels import UNKNOWN, LabelledWindows, Read, Survey, count_window
from wsiseg.errors import StoreError
from wsiseg.geometry import Box
from wsiseg.labels.stores import find_stores, open_stores
from wsiseg.store import SlideStore
from wsiseg.table import refuse

__all__ = ["load_stores"]

_TISSUE = 0.05
"""Minimum labelled share of a window."""
_TILES = 2
"""Tiles along the side of a window, as maps also give the surroundings of a tile."""


def load_stores(paths: Sequence[str | Path], window: int | None = None) -> LabelledWindows:
    """Lay windows side by side over finished maps.

    Parameters
    ----------
    paths
        ``.zarr`` stores, or folders of them; every slide must be stitched.
    window
        Side of the windows in pixels; None for two tiles.

    Raises
    ------
    DataError
        If anything is wrong; lists every problem: stores that are unfinished or do not match, no
        window with tissue.
    """
    problems: list[str] = []
    stores = open_stores(find_stores(paths), problems)
    digests = [_check(store, stores[0], problems) for store in stores]
    if told := tell_models_apart({store.path: store.cam_source for store in stores}):
        problems.append(f"{told}; distil maps of one model")
    refuse(_name(paths), problems, "stores")
    side, palette = window or _TILES * stores[0].grid.tile, stores[0].palette.classes
    places, counts = _lay_windows(stores, side, palette)
    if not places:
        refuse(_name(paths), ["no window shows tissue of any class"], "stores")
    slides = [str(store.slide["name"]) for store in stores]
    cases = [find_case(name) or Path(name).stem for name in slides]
    table = np.stack(counts)
    return LabelledWindows(
        palette=palette, first_stage=_describe(stores), has_confidence=True,
        calibrated=all(store.cam_calibration is not None for store in stores), side=side,
        tile=stores[0].grid.tile,
        # The first stage's own, so that slides are tiled as before and both maps can be compared.
        mpp=stores[0].cam_mpp or float(np.median([store.mpp for store in stores])),
        identity=digest_of(digests, places, palette.names),
        names=tuple(f"{slides[number]} at ({x}, {y})" for number, x, y in places),
        cases=tuple(cases[number] for number, _, _ in places),
        survey=Survey(table.sum(0), table[:, :-1].sum(2) > 0),
        reader=partial(_read, tuple(stores), tuple(places), side),
    )  # fmt: skip


def _check(store: SlideStore, first: SlideStore, problems: list[str]) -> list[str]:
    """Return the digests of a store's pixels and labels; report what does not match `first`."""
    try:
        digests = [store.finished("tile"), store.finished("stitch")]
        palette, other = store.palette.classes, first.palette.classes
    except StoreError as error:
        problems.append(str(error))
        return []
    if palette.names != other.names:
        problems.append(
            f"{store.path}: shows {', '.join(palette.names)}; {first.path} shows "
            f"{', '.join(other.names)}: distil maps of one model"
        )
    return digests


def _describe(stores: Sequence[SlideStore]) -> dict[str, str]:
    source = stores[0].cam_source or "unknown: predicted by an older wsiseg"
    return {"labels": f"maps of {len(stores)} slide(s)", "sha256": source}


def _lay_windows(
    stores: Sequence[SlideStore], side: int, palette: Palette
) -> tuple[list[tuple[int, int, int]], list[np.ndarray]]:
    """Return store number, x and y of each window with tissue, and its counts."""
    places, counts = [], []
    for number, store in enumerate(stores):
        for y in range(0, store.grid.height, side):
            for x in range(0, store.grid.width, side):
                labels, confidence = _read_labels(store, Box(x, y, side, side))
                counted = count_window(labels, confidence, len(palette))
                if counted[:-1].sum() >= _TISSUE * side**2:
                    places.append((number, x, y))
                    counts.append(counted)
    return places, counts


def _read_labels(store: SlideStore, box: Box) -> tuple[np.ndarray, np.ndarray]:
    """Read labels as in `LabelledWindows`; background, stored without confidence, is certain."""
    classes = len(store.palette.classes)
    labels, confidence = store.read_labels(box), store.read_confidence(box)
    outside = labels == BACKGROUND
    if UNSURE in store.palette.names[classes:]:
        labels = np.where(labels == classes, np.uint8(UNKNOWN), labels)
    labels = np.where(outside, np.uint8(classes), labels)
    return labels, np.where(outside, np.uint8(255), confidence)


def _read(
    stores: Sequence[SlideStore], places: Sequence[tuple[int, int, int]], side: int,
    indices: Sequence[int],
) -> Read:  # fmt: skip
    boxes = [(stores[places[n][0]], Box(*places[n][1:], side, side)) for n in indices]
    pairs = [_read_labels(store, box) for store, box in boxes]
    labels, confidence = (np.stack(part) for part in zip(*pairs, strict=True))
    return Read(np.stack([store.read_image(box) for store, box in boxes]), labels, confidence)


def _name(paths: Sequence[str | Path]) -> str:
    return ", ".join(map(str, paths))
