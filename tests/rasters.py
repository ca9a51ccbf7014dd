"""Random label rasters of every awkward kind, and what must hold for each from raster to file.

    python -m tests.rasters [count] [processes] [first seed]

checks as many, by seed, and prints a table; `test_rasters` checks some.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from wsiseg.annotations import BACKGROUND, PALETTES, Annotations, Region
from wsiseg.geometry import Box
from wsiseg.qupath import lint_geojson, read_geojson, write_geojson
from wsiseg.trace import margin_box, merge_blocks, trace_block

Labels = NDArray[np.uint8]
BLOCKS = (128, 256)
LABELS = np.array([0, 1, 2, 3, BACKGROUND], np.uint8)
# Level-0 px per raster px; what comes of mpp ratios such as 0.5 / 0.2529 is no whole number.
SCALES = (1.0, 2.0, 4.0, 8.0, 0.5 / 0.2529, 0.5 / 0.2465, 0.5 / 0.4991, 0.25, 3.3333333)


def noise(rng: np.random.Generator, height: int, width: int) -> Labels:
    return rng.choice(LABELS[rng.permutation(5)[: rng.integers(2, 6)]], (height, width))


def checkerboard(rng: np.random.Generator, height: int, width: int) -> Labels:
    y, x = np.indices((height, width)) // rng.integers(1, 40, (2, 1, 1))
    return LABELS[rng.permutation(5)][(x + y) % rng.integers(2, 4)]


def lines(rng: np.random.Generator, height: int, width: int) -> Labels:
    """One pixel wide, upright, lying and slanted, over each other."""
    labels = np.full((height, width), rng.choice(LABELS), np.uint8)
    y, x = np.indices((height, width))
    for _ in range(rng.integers(1, 12)):
        along = [x, y, x + y, x - y][rng.integers(4)]
        labels[along % rng.integers(2, 60) == rng.integers(2)] = rng.choice(LABELS)
    return labels


def rings(rng: np.random.Generator, height: int, width: int) -> Labels:
    """Rings within rings, square and round, each of a few pixels."""
    y, x = np.indices((height, width))
    center = rng.uniform(0, [height, width])
    dy, dx = np.abs(y - center[0]), np.abs(x - center[1])
    distance = np.maximum(dx, dy) if rng.random() < 0.5 else np.hypot(dx, dy)
    order = rng.choice(LABELS, 512)
    return order[(distance / rng.integers(1, 12)).astype(int) % 512]


def diagonals(rng: np.random.Generator, height: int, width: int) -> Labels:
    """Squares that touch at their corners alone, some of one region elsewhere."""
    side = int(rng.integers(1, 30))
    y, x = np.indices((height, width)) // side
    labels = np.where((x + y) % 2 == 0, rng.choice(LABELS[:4]), rng.choice(LABELS))
    bridges = rng.random((height // side + 1, width // side + 1)) < 0.3
    return np.where(bridges[y, x], labels[0, 0], labels).astype(np.uint8)


def blobs(rng: np.random.Generator, height: int, width: int) -> Labels:
    """Smooth regions over many blocks, with holes."""
    grain = rng.uniform(1, 25)
    fields = [ndimage.gaussian_filter(rng.standard_normal((height, width)), grain) for _ in LABELS]
    return LABELS[np.argmax(fields, axis=0)]


def speckled(rng: np.random.Generator, height: int, width: int) -> Labels:
    labels = blobs(rng, height, width)
    wrong = rng.random((height, width)) < rng.uniform(0, 0.1)
    labels[wrong] = noise(rng, height, width)[wrong]
    return labels


KINDS: tuple[Callable[[np.random.Generator, int, int], Labels], ...] = (
    noise, checkerboard, lines, rings, diagonals, blobs, speckled,
)  # fmt: skip


class Case(NamedTuple):
    """One raster and where it lies."""

    kind: str
    labels: Labels
    scale: tuple[float, float]
    mpp: float
    origin: tuple[int, int]


def make_case(seed: int) -> Case:
    """The raster of a seed: each kind in turn; one in seven may reach over several blocks."""
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    longest = 30 if rng.random() < 0.85 else 130 if kind in (noise, lines) else 330
    height, width = (int(side) for side in rng.integers(1, longest, 2))
    sx = float(rng.choice(SCALES))
    sy = sx if rng.random() < 0.7 else float(rng.choice(SCALES))
    origin = rng.integers(-3000, 30_000, 2) if rng.random() < 0.5 else np.zeros(2, int)
    return Case(
        kind.__name__, kind(rng, height, width), (sx, sy), float(rng.choice([0.25, 0.5, 0.4991])),
        (int(origin[0]), int(origin[1])),
    )  # fmt: skip


def trace_in_blocks(labels: Labels, block: int) -> list[Region]:
    raster = Box(0, 0, labels.shape[1], labels.shape[0])
    # One pixel of background all around, so that every margin lies inside.
    padded = np.pad(labels, 1, constant_values=BACKGROUND)
    columns, rows = (range(0, side, block) for side in (raster.width, raster.height))
    traces = {}
    for index, (y, x) in enumerate(product(rows, columns)):
        box = margin_box(Box(x, y, block, block).intersect(raster), raster)
        part = padded[box.y + 1 : box.y + 1 + box.height, box.x + 1 : box.x + 1 + box.width]
        traces[index] = trace_block(np.ascontiguousarray(part), None, (x, y), BACKGROUND)
    return merge_blocks(traces, len(columns), False)


@njit(cache=True)
def fill(points, stops, classes, owners, drawn, times):  # type: ignore[no-untyped-def]  # numba infers the types
    """Draw polygons, given as rings of whole raster corners, by the even-odd rule.

    `drawn` takes each polygon's class, `times` counts how often a pixel was drawn.
    """
    edges = np.zeros((drawn.shape[0], drawn.shape[1] + 1), np.bool_)
    ring = 0
    while ring < len(stops):
        start = stops[ring - 1] if ring else 0
        owner = owners[ring]
        while ring < len(stops) and owners[ring] == owner:
            for i in range(stops[ring - 1] if ring else 0, stops[ring] - 1):
                y0, y1 = points[i, 1], points[i + 1, 1]
                for y in range(min(y0, y1), max(y0, y1)):
                    edges[y, points[i, 0]] ^= True
            ring += 1
        own = points[start : stops[ring - 1]]
        left, right = own[:, 0].min(), own[:, 0].max()
        for y in range(own[:, 1].min(), own[:, 1].max()):
            on = False
            for x in range(left, right):
                on ^= edges[y, x]
                edges[y, x] = False
                if on:
                    drawn[y, x] = classes[owner]
                    times[y, x] += 1
            edges[y, right] = False


def draw(path: Path, case: Case) -> tuple[Labels, NDArray[np.uint16], NDArray[np.float64]]:
    """The raster that the file's coordinates draw, how often each pixel, and each feature's area.

    Pixel edges are found by rounding, and what was rounded off must be below half a hundredth.
    """
    names = PALETTES["bcss"].names
    document = json.loads(path.read_bytes())
    assert document["wsiseg"]["scale"] == list(case.scale)
    features = document["features"]
    found = [ring for one in features for ring in one["geometry"]["coordinates"]]
    owners = [i for i, one in enumerate(features) for _ in one["geometry"]["coordinates"]]
    drawn = np.full(case.labels.shape, BACKGROUND, np.uint8)
    times = np.zeros(case.labels.shape, np.uint16)
    areas = np.array([one["properties"]["measurements"]["Area mm^2"] for one in features])
    if found:
        placed = np.concatenate([np.array(ring, np.float64) for ring in found])
        corners = np.rint((placed + case.origin) / case.scale).astype(np.int64)
        assert np.abs(corners * case.scale - case.origin - placed).max() <= 0.005 + 1e-6
        classes = [names.index(one["properties"]["classification"]["name"]) for one in features]
        stops = np.cumsum([len(ring) for ring in found])
        fill(corners, stops, np.array(classes, np.uint8), np.array(owners), drawn, times)
    return drawn, times, areas


def check_case(seed: int, folder: Path) -> tuple[str, int, int]:
    """Hold one raster's file to all that is promised; its kind, regions and vertices."""
    case = make_case(seed)
    files = []
    for block in (*BLOCKS, max(case.labels.shape)):
        regions = tuple(trace_in_blocks(case.labels, block))
        annotations = Annotations(
            "case.svs", PALETTES["bcss"], regions, case.scale, case.mpp, case.origin
        )
        files.append(write_geojson(annotations, folder / f"{block}.geojson"))
    whole = files[-1].read_bytes()
    assert all(file.read_bytes() == whole for file in files), "the block size shows"
    findings = [one for one in lint_geojson(files[-1]) if one.rule != "size"]
    assert not findings, findings[:3]
    drawn, times, areas = draw(files[-1], case)
    assert np.array_equal(drawn, case.labels), "drawn back, it is another raster"
    assert np.array_equal(times, case.labels != BACKGROUND), "polygons overlap"
    pixels = np.rint(areas * 1e6 / case.mpp**2).astype(int)
    assert np.allclose(pixels, areas * 1e6 / case.mpp**2, rtol=0, atol=1e-3)
    expected = sum(ndimage.label(case.labels == label)[1] for label in range(len(PALETTES["bcss"])))
    assert len(areas) == expected, "one polygon a 4-connected region"
    assert pixels.sum() == (case.labels != BACKGROUND).sum()
    scaled = [one.geometry for one in read_geojson(files[-1])]
    unit = case.scale[0] * case.scale[1]
    for shape, count in zip(scaled, pixels, strict=True):
        assert shape.is_valid
        assert shape.geom_type == "Polygon"
        assert abs(shape.area - count * unit) <= 0.005 * shape.length + 1e-6
    vertices = sum(len(region.exterior) + sum(map(len, region.holes)) for region in regions)
    return case.kind, len(regions), vertices


def _check_many(seeds: range) -> list[tuple[str, int, int]]:
    with tempfile.TemporaryDirectory() as folder:
        results = []
        for seed in seeds:
            try:
                results.append(check_case(seed, Path(folder)))
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {error}") from error
        return results


def main() -> None:
    """Check many and print a table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    processes = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    first = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    started = time.monotonic()
    seeds = range(first, first + count)
    batches = [seeds[at : at + 50] for at in range(0, count, 50)]
    totals: dict[str, Counter[str]] = {}
    with ProcessPoolExecutor(processes) as pool:
        for batch in pool.map(_check_many, batches):
            for kind, regions, vertices in batch:
                total = totals.setdefault(kind, Counter())
                total.update(rasters=1, regions=regions, vertices=vertices)
    table = [
        f"| {kind} | {total['rasters']:,} | {total['regions']:,} | {total['vertices']:,} |"
        for kind, total in totals.items()
    ]
    head = ["| kind | rasters | regions | vertices |", "|---|---|---|---|"]
    last = f"{count:,} rasters, all as promised, in {time.monotonic() - started:.0f} s"
    sys.stdout.write("\n".join([*head, *table, "", last, ""]))


if __name__ == "__main__":
    main()
