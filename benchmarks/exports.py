"""Every export of one slide: speed and memory, against tifffile and libvips on arrays in memory.

    python benchmarks/exports.py [side ...]        # needs: pip install pyvips-binary

Makes a store of ``side x side`` px with about 35 % tissue of four classes, then runs each way in
its own process, OME-TIFFs in turn, three rounds; CPU seconds are medians over all threads. Peers
get whole decoded arrays in memory, while our time includes reading the store. Libvips makes the
coarser levels itself. "Above" is the peak of resident memory above that before the export (the
interpreter, and the regions where these are exported).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from wsiseg.annotations import BACKGROUND, PALETTES
from wsiseg.compute import SerialExecutor
from wsiseg.config import Config
from wsiseg.geometry import Size
from wsiseg.grid import TileGrid
from wsiseg.outline import outline_regions
from wsiseg.pyramid import halve_confidence, halve_labels, write_pyramid
from wsiseg.store import SlideStore

TEXTURE = 4096
ROUNDS = 3


def make_texture() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Make periodic labels and confidence ``(4096, 4096)`` uint8 of smooth regions."""
    rng = np.random.default_rng(0)
    fields = rng.standard_normal((4, TEXTURE // 16, TEXTURE // 16))
    fine = [
        scipy.ndimage.zoom(
            scipy.ndimage.gaussian_filter(field, 2, mode="wrap"), 16, order=1, mode="grid-wrap",
            grid_mode=True,
        )
        for field in fields
    ]  # fmt: skip
    ranked = np.sort(fine, axis=0)
    margin = np.clip((ranked[-1] - ranked[-2]) * 4000, 0, 255)
    return np.argmax(fine, axis=0).astype(np.uint8), margin.astype(np.uint8)


def make_store(path: Path, side: int) -> None:
    """Make a store with three discs of tissue, 35 % of the slide in total."""
    labels, trust = make_texture()
    facts = {"name": "big.svs", "mpp": [0.25, 0.25], "bounds": [0, 0, 2 * side, 2 * side]}
    store = SlideStore.create(path, TileGrid(side, side, 224, 224, 1792), 0.5, facts)
    store.create_labels(PALETTES["bcss"])
    for index in range(store.grid.n_blocks):
        box = store.grid.block_box(index)
        y, x = np.ogrid[box.y : box.bottom, box.x : box.right]
        tissue = np.zeros((box.height, box.width), bool)
        for cy, cx, radius in ((0.3, 0.3, 0.22), (0.65, 0.7, 0.2), (0.75, 0.25, 0.15)):
            tissue |= np.hypot(y / side - cy, x / side - cx) < radius
        if tissue.any():
            here = np.ix_(np.arange(box.y, box.bottom) % TEXTURE,
                          np.arange(box.x, box.right) % TEXTURE)  # fmt: skip
            part = np.where(tissue, labels[here], np.uint8(BACKGROUND))
            scores = np.where(tissue, trust[here], np.uint8(0))
            for level in store.block_levels:
                store.write_labels(index, level, part, scores)
                part, scores = halve_labels(part), halve_confidence(scores)
        store.mark_done("stitch", index, "5e" * 32)
    write_pyramid(path, "stitch")


def read_pyramids(store: SlideStore) -> list[list[NDArray[np.uint8]]]:
    """Read both rasters completely, at every level."""
    levels = range(len(store.pyramid_factors))
    return [
        [read(store.level_box(i), i) for i in levels]
        for read in (store.read_labels, store.read_confidence)
    ]


def write_by_tifffile(compression: str, pyramids: list[list[NDArray[np.uint8]]], out: Path) -> None:
    """Write as usual: whole arrays to `TiffWriter`, which compresses tiles in threads."""
    import tifffile

    with tifffile.TiffWriter(out.with_suffix(".ome.tif"), bigtiff=True) as tiff:
        for levels in pyramids:
            for i, level in enumerate(levels):
                subifds = len(levels) - 1 if i == 0 else 0
                tiff.write(level, subifds=subifds, tile=(512, 512), compression=compression)


def write_by_vips(pyramids: list[list[NDArray[np.uint8]]], out: Path) -> None:
    """Write two files by libvips, which makes the coarser levels itself."""
    import pyvips

    for number, levels in enumerate(pyramids):
        pyvips.Image.new_from_array(levels[0]).tiffsave(
            str(out.with_suffix(f".{number}.tif")), tile=True, pyramid=True, subifd=True,
            tile_width=512, tile_height=512, compression="deflate", bigtiff=True,
        )  # fmt: skip


def prepare(way: str, store: SlideStore, out: Path) -> Callable[[], object]:
    """Return what is measured, after all preparations."""
    from wsiseg import export

    if way.startswith("wsiseg ome-tiff"):
        return partial(export.export_ome_tiff, store, out, compression=way.split()[-1])
    if way.startswith("tifffile"):
        return partial(write_by_tifffile, way.split()[-1], read_pyramids(store), out)
    if way.startswith("pyvips"):
        return partial(write_by_vips, read_pyramids(store), out)
    regions = outline_regions(store.path, Config(), SerialExecutor())
    size = Size(store.grid.width, store.grid.height)
    if way.endswith("parquet"):
        return partial(export.export_parquet, regions, out)
    if way.endswith("png"):
        return partial(export.export_png, regions, size, out, 4.0)
    if way.endswith("masks"):
        return partial(export.export_masks, regions, size, out)
    return partial(export.export_coco, store, regions, out)


def resident() -> float:
    """Return the current resident memory in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def measure(way: str, store: Path) -> None:
    """Print CPU seconds, wall seconds and MB above the start of one way, as JSON."""
    with tempfile.TemporaryDirectory(dir=store.parent) as folder:
        work = prepare(way, SlideStore(store), Path(folder, "out"))
        before, peak, done = resident(), 0.0, threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.005):
                peak = max(peak, resident())

        watcher = threading.Thread(target=watch)
        watcher.start()
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        done.set()
        watcher.join()
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    print(
        json.dumps(
            {"cpu": cpu, "wall": wall, "above": peak - before, "all": peak, "mb": size / 1e6}
        )
    )


WAYS = (
    "wsiseg ome-tiff deflate", "wsiseg ome-tiff zstd", "tifffile zlib", "tifffile zstd",
    "pyvips deflate", "wsiseg parquet", "wsiseg png", "wsiseg masks", "wsiseg coco",
)  # fmt: skip


N_TIFFS = 5  # of the ways, the first


def main() -> None:
    """Print a table per size."""
    if sys.argv[1:2] == ["--one"]:
        measure(sys.argv[2], Path(sys.argv[3]))
        return
    for side in [int(arg) for arg in sys.argv[1:]] or [20_000]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "big.zarr"
            make_store(path, side)
            store = SlideStore(path)
            boxes = [store.level_box(i) for i in range(len(store.pyramid_factors))]
            pixels = 2 * sum(box.width * box.height for box in boxes) / 1e6
            print(f"\n{side} x {side} px: {pixels:,.0f} MB of labels and confidence\n")
            print("| way | CPU s | MB/s | wall s | above MB | process MB | file MB |")
            print("|---|---|---|---|---|---|---|")
            found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
            for turn in range(ROUNDS):
                for way in WAYS if turn == 0 else WAYS[:N_TIFFS]:
                    command = [sys.executable, __file__, "--one", way, str(path)]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    found[way].append(json.loads(done.stdout))
            for way, runs in found.items():
                cpu, wall, above, all_, mb = (
                    statistics.median(run[key] for run in runs)
                    for key in ("cpu", "wall", "above", "all", "mb")
                )
                rate = f"{pixels / cpu:.0f}" if way in WAYS[:N_TIFFS] else ""
                print(f"| {way} | {cpu:.2f} | {rate} | {wall:.2f} | {above:.0f} | {all_:.0f} | "
                      f"{mb:.1f} |")  # fmt: skip


if __name__ == "__main__":
    main()
