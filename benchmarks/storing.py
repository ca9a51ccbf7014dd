"""Storing: whole shards, blocks, batches of random tiles, and label pyramids.

    python benchmarks/storing.py SLIDE [--blocks 6] [--labels 16384]

CPU seconds of all threads, every way in turn in one process, medians of the rounds. The pixels are
the slide's densest tissue at 0.5 µm/px. zarr, zarrs and tensorstore use the files of the store (or,
when writing, an array of the same layout), whose chunks have interleaved colours: the codec
`transpose`, which is slow in zarrs. Libraries that are not installed are skipped. ome-zarr writes
the same labels as its own pyramid, with its defaults.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from wsiseg.annotations import PALETTES
from wsiseg.config import TissueConfig
from wsiseg.geometry import Box
from wsiseg.grid import TileGrid
from wsiseg.pyramid import halve_confidence, halve_labels, write_pyramid
from wsiseg.slide import open_slide
from wsiseg.store import SlideStore
from wsiseg.tissue import detect_tissue

TILE, BLOCK, MPP, BATCH = 224, 1792, 0.5, 64
CODECS = ("zstd", "lz4", "none")


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--labels", type=int, default=16384)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # of other libraries
    with tempfile.TemporaryDirectory() as folder:
        pixels = read_tissue(arguments.slide, arguments.blocks)
        compare_images(pixels, Path(folder), arguments.rounds)
        compare_pyramids(arguments.labels, Path(folder), arguments.rounds)


def read_tissue(path: Path, count: int) -> list[NDArray[np.uint8]]:
    """Read the `count` blocks of a slide with the most tissue."""
    with open_slide(path) as slide:
        size = slide.raster_size(MPP)
        grid = TileGrid(size.height, size.width, TILE, TILE, BLOCK)
        config = TissueConfig()
        mask, scale = detect_tissue(slide, config), MPP / config.mpp
        boxes = [grid.block_box(block) for block in range(grid.n_blocks)]
        whole = [box for box in boxes if box.width == box.height == BLOCK]

        def share(box: Box) -> float:
            rows, cols = box.slices()
            part = mask[int(rows.start * scale) : int(rows.stop * scale),
                        int(cols.start * scale) : int(cols.stop * scale)]  # fmt: skip
            return float(part.mean())

        best = sorted(whole, key=share, reverse=True)[:count]
        print(f"tissue in the blocks: {np.mean([share(box) for box in best]):.0%}\n")
        return [slide.read(box, MPP) for box in best]


def cpu_seconds(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Measure median CPU seconds of each way, in turn, after an uncounted round."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for index in range(rounds + 1):
        for name, way in ways.items():
            started = time.process_time()
            way()
            if index:
                taken[name].append(time.process_time() - started)
    return {name: median(times) for name, times in taken.items()}


def compare_images(blocks: list[NDArray[np.uint8]], folder: Path, rounds: int) -> None:
    """Compare writing shards, reading blocks and reading batches, by codec and library."""
    size = sum(block.nbytes for block in blocks) / 1e6
    batch = BATCH * TILE * TILE * 3 / 1e6
    print(f"{len(blocks)} blocks of {BLOCK} px, {size:.0f} MB; batches of {BATCH} random tiles\n")
    print("| codec | ratio | way | whole shards MB/s | blocks MB/s | random batches MB/s |")
    print("|---|---|---|---|---|---|")
    for codec in CODECS:
        path = folder / f"{codec}.zarr"
        grid = TileGrid(BLOCK, BLOCK * len(blocks), TILE, TILE, BLOCK)
        store = SlideStore.create(path, grid, MPP, {"name": "a", "identity": "0"}, codec)
        writes = writers(store, blocks, folder / "other.zarr")
        written = cpu_seconds(writes, rounds)
        for index, block in enumerate(blocks):
            store.write_image(index, block)
        tiles = np.random.default_rng(0).integers(0, [grid.rows, grid.cols], (BATCH, 2))
        whole = cpu_seconds(readers(path, store), rounds)
        random = cpu_seconds(samplers(path, store, [tuple(t) for t in tiles.tolist()]), rounds)
        packed = path.joinpath("image/0").rglob("c/0/*/*")
        ratio = size * 1e6 / sum(file.stat().st_size for file in packed)
        for way in dict.fromkeys([*written, *whole, *random]):
            cells = [
                f"{mb / seconds[way]:.0f}" if way in seconds else ""
                for mb, seconds in ((size, written), (size, whole), (batch, random))
            ]
            print(f"| {codec} | {ratio:.2f} | {way} | {' | '.join(cells)} |")
    print()


def writers(
    store: SlideStore, blocks: list[NDArray[np.uint8]], other: Path
) -> dict[str, Callable[[], object]]:
    """Return ways to write every block."""
    image = store._array("image/0")
    shutil.rmtree(other, ignore_errors=True)
    shutil.copytree(store.path / "image" / "0", other)

    def shards() -> None:
        for index, block in enumerate(blocks):
            image.write(0, index, block)

    def pyramid() -> None:
        for index, block in enumerate(blocks):
            store.write_image(index, block)

    def plain() -> None:
        array = zarr.open_array(str(other), mode="r+")
        for index, block in enumerate(blocks):
            array[:, :, index * BLOCK : (index + 1) * BLOCK] = np.moveaxis(block, 2, 0)

    ways: dict[str, Callable[[], object]] = {
        "wsiseg": shards, "wsiseg with coarser levels": pyramid, "zarr": plain,
    }  # fmt: skip
    if piped := with_zarrs(plain):
        ways["zarr + zarrs"] = piped
    return ways


def readers(path: Path, store: SlideStore) -> dict[str, Callable[[], object]]:
    """Return ways to read every block, interleaved as models need it."""
    boxes = [store.grid.block_box(block) for block in range(store.grid.n_blocks)]

    def plain() -> None:
        array = zarr.open_array(f"{path}/image/0", mode="r")
        for box in boxes:
            rows, cols = box.slices()
            np.ascontiguousarray(np.moveaxis(np.asarray(array[:, rows, cols]), 0, 2))

    ways: dict[str, Callable[[], object]] = {
        "wsiseg": lambda: [store.read_image(box) for box in boxes], "zarr": plain,
    }  # fmt: skip
    if piped := with_zarrs(plain):
        ways["zarr + zarrs"] = piped
    if opened := open_tensorstore(path):
        ways["tensorstore"] = lambda: [
            np.ascontiguousarray(np.moveaxis(opened[(slice(None), *box.slices())].read().result(),
                                             0, 2)) for box in boxes
        ]  # fmt: skip
    return ways


def samplers(
    path: Path, store: SlideStore, tiles: list[tuple[int, int]]
) -> dict[str, Callable[[], object]]:
    """Return ways to read a batch of random tiles ``(N, tile, tile, 3)``."""
    boxes = [store.grid.tile_box(*tile) for tile in tiles]

    def fill(read: Callable[[slice, slice], Any]) -> NDArray[np.uint8]:
        out = np.empty((len(boxes), TILE, TILE, 3), np.uint8)
        for index, box in enumerate(boxes):
            out[index] = np.moveaxis(np.asarray(read(*box.slices())), 0, 2)
        return out

    def plain() -> object:
        array = zarr.open_array(f"{path}/image/0", mode="r")
        return fill(lambda rows, cols: array[:, rows, cols])

    ways: dict[str, Callable[[], object]] = {
        "wsiseg": lambda: store.read_windows(boxes), "zarr": plain,
    }  # fmt: skip
    if piped := with_zarrs(plain):
        ways["zarr + zarrs"] = piped
    if opened := open_tensorstore(path):

        def together() -> object:
            reads = [opened[(slice(None), *box.slices())].read() for box in boxes]
            out = np.empty((len(boxes), TILE, TILE, 3), np.uint8)
            for index, read in enumerate(reads):
                out[index] = np.moveaxis(read.result(), 0, 2)
            return out

        ways["tensorstore"] = together
    return ways


def with_zarrs(way: Callable[[], object]) -> Callable[[], object] | None:
    """Do the same with the zarrs codec pipeline, if it is installed."""
    try:
        import zarrs  # noqa: F401  # whether it is there
    except ImportError:
        return None

    def piped() -> object:
        with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
            return way()

    return piped


def open_tensorstore(path: Path) -> Any:
    """Open the store's image in tensorstore; None if it is not installed."""
    try:
        import tensorstore
    except ImportError:
        return None
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/image/0/"}}
    return tensorstore.open(spec, open=True, read=True).result()


def draw_labels(side: int) -> NDArray[np.uint8]:
    """Draw five classes in regions of some 38 px with wavy borders."""
    coarse = np.random.default_rng(0).integers(0, 5, (side // 32 + 2,) * 2, dtype=np.uint8)
    coarse[coarse == 4] = 255
    at = np.arange(side)
    wave = np.rint(9 * np.sin(at / 11)).astype(int) + 16
    rows = (at[:, None] + wave[None, :]) // 32
    cols = (at[None, :] + wave[:, None]) // 32
    return coarse[rows, cols]


def compare_pyramids(side: int, folder: Path, rounds: int) -> None:
    """Compare the pyramids of `wsiseg stitch`, synced, with that of ome-zarr."""
    labels = draw_labels(side)
    grid = TileGrid(side, side, TILE, TILE, BLOCK)
    store = SlideStore.create(folder / "labels.zarr", grid, MPP, {"name": "a", "identity": "0"})
    store.create_labels(PALETTES["bcss"])
    levels = range(len(store.pyramid_factors))

    def write() -> None:
        store.clear_marks("stitch")
        for block in range(grid.n_blocks):
            part = trust = np.ascontiguousarray(labels[grid.block_box(block).slices()])
            for level in store.block_levels:
                store.write_labels(block, level, part, trust)
                part, trust = halve_labels(part), halve_confidence(trust)
            store.mark_done("stitch", block, "ab" * 32)
        write_pyramid(store.path, "stitch")

    ways: dict[str, Callable[[], object]] = {"wsiseg, classes and confidence": write}
    try:
        from ome_zarr.writer import write_labels
    except ImportError:
        print("ome-zarr is not installed: no comparison of pyramids\n")
    else:

        def theirs() -> None:
            shutil.rmtree(folder / "ome.zarr", ignore_errors=True)
            group = zarr.open_group(str(folder / "ome.zarr"), mode="w", zarr_format=3)
            write_labels(labels, group, name="classes", axes="yx")

        ways["ome-zarr, classes"] = theirs
    seconds = cpu_seconds(ways, min(rounds, 3))
    counts = {"wsiseg": folder / "labels.zarr/labels", "ome-zarr": folder / "ome.zarr"}
    print(f"Pyramid of {side} x {side} labels, {len(levels)} levels (ome-zarr: 5)\n")
    print("| way | CPU s | MB/s | times as fast | files | MB |")
    print("|---|---|---|---|---|---|")
    slowest = seconds.get("ome-zarr, classes", float("nan"))
    for way, taken in seconds.items():
        files = [file for file in counts[way.split(",")[0]].rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files) / 1e6
        written = labels.nbytes * (2 if "and" in way else 1)
        print(f"| {way} | {taken:.2f} | {written / 1e6 / taken:.0f} | {slowest / taken:.1f} "
              f"| {len(files)} | {size:.1f} |")  # fmt: skip


if __name__ == "__main__":
    main()
