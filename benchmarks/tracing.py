"""Trace a label raster into polygons, against `rasterio.features.shapes` in the same run.

    python benchmarks/tracing.py [side ...]        (rasterio beside wsiseg for the peer's rows)

Every measurement is a separate process, which loads the raster, traces a corner of it (to exclude
compilation) and then the whole. Times are CPU seconds, as the machine may be shared; contenders
take turns, and the median of the rounds is reported. Peak memory is that of the process and
includes the raster, except for "blocks", which reads blocks one by one from a file, as the outline
step does. Finally, the polygons of both are compared on the smallest raster.
"""

from __future__ import annotations

import importlib.util
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsiseg.annotations import BACKGROUND
from wsiseg.geometry import Box
from wsiseg.trace import margin_box, merge_blocks, trace_block, trace_regions

ROUNDS = 3
PIECE = 2048
BLOCK = 1792

Labels = NDArray[np.uint8]


def make_raster(side: int) -> Labels:
    """Make four classes and background; about 660 regions per megapixel with pixel-level grain.

    Pieces of smoothed noise, some 38 px per region, are joined with seams as in a tissue map.
    """
    rng = np.random.default_rng(0)
    pieces = []
    for _ in range(4):
        fields = rng.standard_normal((5, PIECE, PIECE), np.float32)
        smooth = [ndimage.gaussian_filter(field, 12.7, mode="wrap") for field in fields]
        piece = np.argmax(smooth, axis=0).astype(np.uint8)
        pieces.append(np.where(piece == 4, BACKGROUND, piece).astype(np.uint8))
    out = np.empty((side, side), np.uint8)
    for y, x in product(range(0, side, PIECE), repeat=2):
        rolled = np.roll(pieces[rng.integers(4)], rng.integers(0, PIECE, 2), (0, 1))
        out[y : y + PIECE, x : x + PIECE] = rolled[: side - y, : side - x]
    return out


def trace_whole(labels: Labels) -> int:
    """Apply `trace_regions` to the raster in memory."""
    return len(trace_regions(np.asarray(labels)))


def trace_in_blocks(labels: Labels) -> int:
    """Trace block by block, then merge; `labels` may be a file."""
    raster, traces = Box(0, 0, labels.shape[1], labels.shape[0]), {}
    corners = product(range(0, raster.height, BLOCK), range(0, raster.width, BLOCK))
    for i, (y, x) in enumerate(corners):
        box = margin_box(Box(x, y, BLOCK, BLOCK).intersect(raster), raster)
        inside = box.intersect(raster)
        view = np.full((box.height, box.width), BACKGROUND, np.uint8)
        view[inside.slices(box)] = labels[inside.slices()]
        traces[i] = trace_block(view, None, (x, y), BACKGROUND)
    return len(merge_blocks(traces, -(-raster.width // BLOCK), scored=False))


def trace_by_rasterio(labels: Labels) -> int:
    """Apply `rasterio.features.shapes` with 4-connectivity to the raster in memory."""
    from rasterio.features import shapes

    return len(list(shapes(labels, mask=labels != BACKGROUND, connectivity=4)))


CONTENDERS: dict[str, Callable[[Labels], int]] = {
    "trace_regions, whole": trace_whole,
    "blocks of 1792, merged": trace_in_blocks,
    "rasterio.features.shapes": trace_by_rasterio,
}


def measure(name: str, path: str) -> None:
    """Print the number of polygons, CPU seconds and peak MB; runs in a separate process."""
    labels = np.load(path, mmap_mode="r" if "blocks" in name else None)
    CONTENDERS[name](labels[:256, :256].copy())
    started = time.process_time()
    count = CONTENDERS[name](labels)
    seconds = time.process_time() - started
    print(count, seconds, peak_megabytes())


def peak_megabytes() -> float:
    """Return this process's peak; `ru_maxrss` would start with that of its parent."""
    (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line) / 1024


def compare(path: str) -> str:
    """Return whether both give the same polygons, and how many of ours are invalid."""
    import shapely
    from rasterio.features import shapes

    labels = np.load(path)
    regions = trace_regions(labels)
    ours = np.array([shapely.Polygon(region.exterior, region.holes) for region in regions])
    found = list(shapes(labels, mask=labels != BACKGROUND, connectivity=4))
    theirs = np.array([shapely.geometry.shape(geometry) for geometry, _ in found])
    named = [
        sorted(zip(names, shapely.to_wkb(shapely.normalize(polygons)).tolist(), strict=True))
        for names, polygons in (
            ([region.label for region in regions], ours),
            ([int(value) for _, value in found], theirs),
        )
    ]
    invalid = int((~shapely.is_valid(ours)).sum())
    return f"same polygons: {named[0] == named[1]}; invalid: {invalid} of {len(regions)}"


def main() -> None:
    """Print a table for each side."""
    sides = [int(side) for side in sys.argv[1:]] or [4096, 16384]
    peer = importlib.util.find_spec("rasterio") is not None
    names = [name for name in CONTENDERS if peer or "rasterio" not in name]
    with tempfile.TemporaryDirectory() as folder:
        for side in sides:
            path = str(Path(folder) / f"{side}.npy")
            labels = make_raster(side)
            np.save(path, labels)
            print(f"\n{side} x {side} labels, {labels.size / 1e6:.0f} Mpx")
            del labels
            print("| way | polygons | CPU s | Mpx/s | times as fast | peak MB |")
            print("|---|---|---|---|---|---|")
            results: dict[str, list[list[float]]] = {name: [] for name in names}
            for _, name in product(range(ROUNDS), names):
                command = [sys.executable, __file__, "--measure", name, path]
                line = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                results[name].append([float(word) for word in line.split()])
            slowest = statistics.median(row[1] for row in results[names[-1]])
            for name, rows in results.items():
                seconds = statistics.median(row[1] for row in rows)
                print(
                    f"| {name} | {rows[0][0]:,.0f} | {seconds:.2f} "
                    f"| {side * side / seconds / 1e6:.0f} | {slowest / seconds:.1f} "
                    f"| {max(row[2] for row in rows):.0f} |"
                )
        if peer:
            print(compare(str(Path(folder) / f"{min(sides)}.npy")))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(*sys.argv[2:])
    else:
        main()
