"""The step from a label raster to regions: absorb small ones, trace, join, simplify, smooth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from wsiseg.annotations import BACKGROUND, Annotations, Palette, Region
from wsiseg.compute import Progress, run
from wsiseg.config import Config, OutlineConfig
from wsiseg.geometry import Box
from wsiseg.store import SlideStore
from wsiseg.trace import (
    SMOOTH_UNITS,
    BlockTrace,
    Contacts,
    absorb_small,
    find_contacts,
    margin_box,
    merge_blocks,
    paint_block,
    polygon_areas,
    simplify_regions,
    smooth_regions,
    trace_block,
)

__all__ = ["outline_regions"]

_STEP = "outline"

_Item = tuple[int, NDArray[np.uint8] | None]
"""A block, and new labels of its components if small ones were absorbed."""

_Report = Callable[[], None]
_R = TypeVar("_R")  # PEP 695 syntax needs Python 3.12


def outline_regions(
    store_path: str | Path, config: Config, executor: Executor, progress: Progress | None = None
) -> Annotations:
    """Outline every connected region of the slide's labels.

    The result does not depend on the block size, the executor or the order in which blocks finish.
    The labels in the store are not changed.

    Returns
    -------
    Annotations
        Regions sorted by label and first vertex. Its provenance names the digest of the labels and
        the settings and, where borders were simplified or smoothed, by how much each class's
        area changed.

    Raises
    ------
    StoreError
        If the store holds no labels, or stitching did not finish.
    """
    store, settings = SlideStore(store_path), config.outline
    palette, columns, n_blocks = store.palette, store.grid.block_cols, store.grid.n_blocks
    labels_digest = store.finished("stitch")
    absorbs = settings.min_area_um2 > 0 or settings.min_hole_um2 > 0
    report = _count_up(progress, n_blocks * (1 + absorbs))
    items: list[_Item] = [(block, None) for block in range(n_blocks)]
    if absorbs:
        limits = _pixel_limits(settings, store.mpp)
        measure = partial(_measure_block, str(store_path), limits)
        contacts = _gather(executor, measure, items, report)
        items = list(absorb_small(contacts, columns, limits, BACKGROUND).items())
    reshapes = settings.simplify_um > 0 or settings.smooth > 0
    work = partial(_trace_block, str(store_path), reshapes)
    regions = merge_blocks(_gather(executor, work, items, report), columns)
    provenance = {"labels": labels_digest, "outline": settings.model_dump_json()}
    if reshapes:
        # Even a tolerance of 0 removes the collinear points that tracing kept for neighbours.
        regions = simplify_regions(_consume(regions), settings.simplify_um / store.mpp)
    for _ in range(settings.smooth):
        regions = smooth_regions(_consume(regions))
    if reshapes:
        provenance["area_error"] = _area_errors(regions, palette)
    annotations = _annotate(store, config, regions, SMOOTH_UNITS**settings.smooth, provenance)
    return replace(annotations, exact=not reshapes, valid=True)


def _consume(regions: list[Region]) -> Iterator[Region]:
    """Yield the regions and remove them from the list, to keep one copy of all vertices."""
    regions.reverse()
    while regions:
        yield regions.pop()


def _annotate(
    store: SlideStore, config: Config, regions: list[Region], units: int,
    provenance: dict[str, str],
) -> Annotations:  # fmt: skip
    slide, mpp = store.slide, store.mpp / units
    x, y = (int(corner) for corner in slide["bounds"][:2])
    return Annotations(
        slide=slide["name"],
        palette=store.palette,
        regions=tuple(regions),
        scale=(mpp / slide["mpp"][0], mpp / slide["mpp"][1]),
        mpp=mpp,
        origin=(x, y) if config.export.origin == "qupath" else (0, 0),
        provenance=provenance,
    )


def _gather(
    executor: Executor, work: Callable[[_Item], _R], items: Sequence[_Item], report: _Report
) -> dict[int, _R]:
    """Run `work` on all items; return the results by block."""
    results = {}
    for (block, _), result in run(executor, work, items):
        results[block] = result
        report()
    return results


def _count_up(progress: Progress | None, total: int) -> _Report:
    """Return a function that reports one more block as done."""
    done = count(1)
    return lambda: progress(_STEP, next(done), total) if progress else None


def _read_block(path: str, block: int) -> tuple[Box, NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Read a block's square, and its labels and confidence with a margin; None if it is empty."""
    store = SlideStore(path)
    square = store.grid.block_box(block)
    box = margin_box(square, store.grid.box)
    labels = store.read_labels(box)
    has_regions = labels.min() != BACKGROUND  # the largest label
    return square, labels, store.read_confidence(box) if has_regions else None


def _measure_block(path: str, limits: NDArray[np.float64], item: _Item) -> Contacts:
    _, labels, _ = _read_block(path, item[0])
    return find_contacts(labels, limits)


def _trace_block(path: str, junctions: bool, item: _Item) -> BlockTrace | None:
    square, labels, confidence = _read_block(path, item[0])
    if item[1] is not None:
        labels = paint_block(labels, item[1])
    return trace_block(labels, confidence, (square.x, square.y), BACKGROUND, junctions)


def _pixel_limits(settings: OutlineConfig, mpp: float) -> NDArray[np.float64]:
    """Return ``(256,)`` limits by label: components of fewer pixels are absorbed."""
    limits = np.full(256, settings.min_area_um2 / mpp**2)
    limits[BACKGROUND] = settings.min_hole_um2 / mpp**2
    return limits


def _area_errors(regions: Sequence[Region], palette: Palette) -> str:
    """Format the relative change of each class's area by simplifying and smoothing, in percent."""
    true, drawn = np.zeros(len(palette)), np.zeros(len(palette))
    for region, area in zip(regions, polygon_areas(regions).tolist(), strict=True):
        true[region.label] += region.area_px
        drawn[region.label] += area
    return ", ".join(
        f"{name} {100 * (drawn[i] / true[i] - 1):+.3f} %"
        for i, name in enumerate(palette.names)
        if true[i]
    )
