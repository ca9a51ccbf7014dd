"""Label rasters to trace, and the slow obvious ways to find and to draw their regions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import shapely
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from wsiseg.annotations import BACKGROUND, Region
from wsiseg.geometry import Box
from wsiseg.trace import BlockTrace, margin_box, merge_blocks, trace_block

Labels = NDArray[np.uint8]

sizes = st.tuples(st.integers(1, 26), st.integers(1, 26))


def noise(size: tuple[int, int], classes: int, seed: int) -> Labels:
    """Every pixel for itself; the last class is background."""
    labels = np.random.default_rng(seed).integers(0, classes, size).astype(np.uint8)
    return np.where(labels == classes - 1, BACKGROUND, labels).astype(np.uint8)


def porous(size: tuple[int, int], classes: int, seed: int) -> Labels:
    """One class just above the density where it connects: long, pinched, full of holes."""
    solid = np.random.default_rng(seed).random(size) < 0.6
    return np.where(solid, 0, classes if seed % 2 else BACKGROUND).astype(np.uint8)


def checkerboard(size: tuple[int, int], classes: int, seed: int) -> Labels:
    """Fields of `seed` modulo 3 pixels, all corners of which touch diagonally."""
    y, x = np.indices(size) // (1 + seed % 3)
    return ((y + x) % classes).astype(np.uint8)


def lines(size: tuple[int, int], classes: int, seed: int) -> Labels:
    """One-pixel lines across each other."""
    rng = np.random.default_rng(seed)
    labels = np.full(size, BACKGROUND, np.uint8)
    for k in range(6):
        labels[rng.integers(size[0])] = k % classes
        labels[:, rng.integers(size[1])] = k % classes
    return labels


def rings(size: tuple[int, int], classes: int, seed: int) -> Labels:
    """Nested rings, square or with diagonal corners."""
    y, x = np.indices(size)
    y, x = abs(y - size[0] // 2), abs(x - size[1] // 2)
    distance = np.maximum(y, x) if seed % 2 else y + x
    return (distance // (1 + seed % 3) % classes).astype(np.uint8)


def diagonals(size: tuple[int, int], classes: int, seed: int) -> Labels:
    """Stairs that touch at corners only."""
    y, x = np.indices(size)
    stripe = (y + x if seed % 2 else y - x) % (2 + seed % 4)
    return np.where(stripe == 0, seed % classes, BACKGROUND).astype(np.uint8)


def blobs(size: tuple[int, int], classes: int, seed: int, coarse: float = 2) -> Labels:
    """Smooth regions, much as a slide's."""
    fields = np.random.default_rng(seed).standard_normal((classes + 1, *size))
    smooth = np.argmax([ndimage.gaussian_filter(field, coarse) for field in fields], axis=0)
    return np.where(smooth == classes, BACKGROUND, smooth).astype(np.uint8)


def rasters(size: st.SearchStrategy[tuple[int, int]] = sizes) -> st.SearchStrategy[Labels]:
    """Rasters of all these kinds."""
    kinds = (noise, porous, checkerboard, lines, rings, diagonals, blobs)
    return st.builds(
        lambda make, *args: make(*args),
        st.sampled_from(kinds), size, st.integers(1, 4), st.integers(0, 2**32 - 1),
    )  # fmt: skip


def scores_for(labels: Labels) -> Labels:
    """Some confidence for every pixel."""
    return np.random.default_rng(labels.size).integers(0, 256, labels.shape).astype(np.uint8)


def flood(labels: Labels) -> list[tuple[int, NDArray[np.bool_]]]:
    """Label and mask of every 4-connected region that is not background, by flood filling."""
    found, left = [], labels != BACKGROUND
    for start in np.argwhere(left):
        if not left[tuple(start)]:
            continue
        label, mask, stack = labels[tuple(start)], np.zeros(labels.shape, bool), [tuple(start)]
        while stack:
            y, x = stack.pop()
            inside = 0 <= y < labels.shape[0] and 0 <= x < labels.shape[1]
            if inside and left[y, x] and labels[y, x] == label:
                left[y, x], mask[y, x] = False, True
                stack += [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        found.append((int(label), mask))
    return sorted(found, key=lambda region: region[0])


def fill(region: Region, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels inside a region's rings: those with an odd number of borders on their left."""
    borders = np.zeros((shape[0], shape[1] + 1), int)
    for ring in (region.exterior, *region.holes):
        for (x, y), (_, y_next) in pairwise(ring):
            borders[min(y, y_next) : max(y, y_next), x] += 1
    return np.cumsum(borders, axis=1)[:, :-1] % 2 == 1


def draw(regions: Sequence[Region], shape: tuple[int, int]) -> Labels:
    """The raster that the regions show; fails if two of them overlap."""
    out = np.full(shape, BACKGROUND, np.uint8)
    for region in regions:
        inside = fill(region, shape)
        assert (out[inside] == BACKGROUND).all()
        out[inside] = region.label
    return out


def cut(labels: Labels, box: Box, outside: int = BACKGROUND) -> Labels:
    """A box of an array, `outside` beyond it."""
    inside = box.intersect(Box(0, 0, labels.shape[1], labels.shape[0]))
    out = np.full((box.height, box.width), outside, np.uint8)
    out[inside.slices(box)] = labels[inside.slices()]
    return out


def squares(labels: Labels, block: int) -> dict[int, Box]:
    """The blocks of a raster by row-major index."""
    raster = Box(0, 0, labels.shape[1], labels.shape[0])
    corners = [
        (x, y) for y in range(0, raster.height, block) for x in range(0, raster.width, block)
    ]
    return {i: Box(*corner, block, block).intersect(raster) for i, corner in enumerate(corners)}


def trace_in_blocks(
    labels: Labels, scores: Labels, block: int, junctions: bool = False
) -> list[Region]:
    """What `trace_regions` does, block by block."""
    raster, traces = Box(0, 0, labels.shape[1], labels.shape[0]), dict[int, BlockTrace | None]()
    for i, square in squares(labels, block).items():
        box = margin_box(square, raster)
        traces[i] = trace_block(
            cut(labels, box), cut(scores, box, 0), (square.x, square.y), BACKGROUND, junctions
        )
    return merge_blocks(traces, -(-raster.width // block))


def build_polygons(regions: Sequence[Region]) -> NDArray[np.object_]:
    """Shapely polygons of the regions, in the units of their rings."""
    rings = [ring for region in regions for ring in (region.exterior, *region.holes)]
    ring_ends = np.cumsum([0] + [len(ring) for ring in rings])
    region_ends = np.cumsum([0] + [1 + len(region.holes) for region in regions])
    points = np.concatenate(rings).astype(float)
    return np.asarray(
        shapely.from_ragged_array(shapely.GeometryType.POLYGON, points, (ring_ends, region_ends))
    )


def assert_same(got: Sequence[Region], want: Sequence[Region]) -> None:
    """Regions equal to the last vertex, and in the same order."""
    assert len(got) == len(want)
    for one, two in zip(got, want, strict=True):
        assert (one.label, one.area_px, one.confidence) == (two.label, two.area_px, two.confidence)
        assert one.exterior.dtype == np.int32
        assert len(one.holes) == len(two.holes)
        for ring, other in zip((one.exterior, *one.holes), (two.exterior, *two.holes), strict=True):
            np.testing.assert_array_equal(ring, other)
