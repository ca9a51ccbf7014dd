"""A slide's regions in several files, each a place of the slide, for what is too much at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsiseg.annotations import Annotations
from wsiseg.qupath.write.geojson import ObjectType, number_regions, write_geojson

__all__ = ["PARTS_SUFFIX", "count_vertices", "is_part", "split_regions", "write_parts"]

PARTS_SUFFIX = ".parts"
"""End of the name of a folder of parts; the import script looks for it."""

_NAME = re.compile(r".* \d+ \[x=-?\d+,y=-?\d+,w=\d+,h=\d+\]\.geojson\.gz")
_FINE = 8  # a region longer than this share of the slide would make its part's box as long


def write_parts(
    annotations: Annotations, folder: Path, base: str, object_type: ObjectType, limit: int
) -> list[Path]:
    """Write parts of at most `limit` vertices (but no region is cut) into `folder`.

    Each is named by its box in the file's pixels, as QuPath names exported tiles: ``base 007
    [x=0,y=4096,w=8192,h=8192].geojson.gz``. Every region is in one part, with the name and the id
    that it has in a file of all.
    """
    boxes, vertices = _measure(annotations)
    groups = split_regions(boxes, vertices, limit)
    numbers = number_regions(annotations)
    paths = []
    for number, group in enumerate(groups, 1):
        part = replace(
            annotations,
            regions=tuple(annotations.regions[i] for i in group),
            provenance={**annotations.provenance, "part": f"{number} of {len(groups)}"},
        )
        path = folder / f"{base} {number:03d} {_spell_box(boxes[group])}.geojson.gz"
        paths.append(write_geojson(part, path, object_type, numbers[group]))
    return paths


def is_part(path: Path) -> bool:
    """Whether a file is named as a part is."""
    return _NAME.fullmatch(path.name) is not None


def split_regions(
    boxes: NDArray[np.float64], weights: NDArray[np.intp], limit: int
) -> list[NDArray[np.intp]]:
    """Groups of neighbours whose weights sum up to `limit` at most, or of one heavier region.

    Long regions, which reach everywhere, come first and keep to themselves.

    Parameters
    ----------
    boxes : ``(R, 4)`` x0, y0, x1, y1 of each region.
    weights : ``(R,)`` what counts against `limit`.
    limit : largest sum of a group's weights.

    Returns
    -------
    Indices of the regions of each group, ascending.
    """
    if not len(boxes):
        return []
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    extent = (boxes[:, 2:].max(axis=0) - boxes[:, :2].min(axis=0)).max()
    is_long = sides > extent / _FINE
    centers = boxes[:, :2] + boxes[:, 2:]
    return [
        group
        for members in (np.flatnonzero(is_long), np.flatnonzero(~is_long))
        for group in _halve(members, centers, weights, limit)
    ]


def _halve(
    members: NDArray[np.intp], centers: NDArray[np.float64], weights: NDArray[np.intp], limit: int
) -> Iterator[NDArray[np.intp]]:
    """Cut across the longer side, at half the weight, until each group is light enough."""
    if len(members) <= 1 or weights[members].sum() <= limit:
        if len(members):
            yield np.sort(members)
        return
    own = centers[members]
    axis = int(np.ptp(own, axis=0).argmax())
    order = members[np.argsort(own[:, axis], kind="stable")]
    sums = np.cumsum(weights[order])
    cut = min(max(int(np.searchsorted(sums, sums[-1] / 2, "right")), 1), len(order) - 1)
    yield from _halve(order[:cut], centers, weights, limit)
    yield from _halve(order[cut:], centers, weights, limit)


def _measure(annotations: Annotations) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Each region's box in the file's pixels, and how many vertices it has."""
    scale, origin = np.array(annotations.scale * 2), np.array(annotations.origin * 2)
    boxes = np.array(
        [
            [*region.exterior.min(axis=0), *region.exterior.max(axis=0)]
            for region in annotations.regions
        ],
        np.float64,
    ).reshape(-1, 4)
    return boxes * scale - origin, count_vertices(annotations)


def count_vertices(annotations: Annotations) -> NDArray[np.intp]:
    """``(R,)`` vertices of each region, those of its holes too."""
    counts = (len(region.exterior) + sum(map(len, region.holes)) for region in annotations.regions)
    return np.fromiter(counts, np.intp, len(annotations.regions))


def _spell_box(boxes: NDArray[np.float64]) -> str:
    x, y = np.floor(boxes[:, :2].min(axis=0)).astype(int)
    right, bottom = np.ceil(boxes[:, 2:].max(axis=0)).astype(int)
    return f"[x={x},y={y},w={right - x},h={bottom - y}]"
