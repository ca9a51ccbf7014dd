"""Read and tile slides, against what others do, in the same run.

    python benchmarks/tiling.py [--quick] [SLIDE ...]

Without slides, on a synthetic one: 40,000 x 32,000 px, Aperio's layout, JPEG quality 80 4:2:0 in
240 x 240 tiles, 0.25 µm/px, about a third of it tissue (`--quick`: a sixteenth of the area). Slides
that are given are read as well. pyvips and fastslide are peers where they are installed; the whole
job of others needs h5py and opencv.

Reading: CPU milliseconds of one thread for a tile of 224 px, contenders in turn, median of the
rounds; all read the same squares with tissue of the same blocks. "Limit" is libjpeg-turbo decoding
each compressed tile that they touch once, all bytes in memory, nothing else done. The whole job:
CPU seconds to find the tissue and write all tiles to a store. Last, time and memory of `wsiseg
tile` by slide size and workers; memory is the proportional share of all its processes (Linux).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openslide
import tiffslide
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from wsiseg.compute import SerialExecutor, open_executor
from wsiseg.config import Config, SlideConfig
from wsiseg.demo.svs import Coding, write_svs
from wsiseg.geometry import Box, Size
from wsiseg.slide import open_slide
from wsiseg.slide.direct import DirectReader
from wsiseg.slide.scratch import scratch
from wsiseg.store import SlideStore
from wsiseg.tile import _parts, tile_slide
from wsiseg.tissue import kept_tiles

TILE, SIDE = 224, 8
"""Tile side; tiles along the side of a block."""

Pixels = NDArray[np.uint8]


# -- the synthetic slide -------------------------------------------------------------------------


def write_slide(path: Path, size: Size) -> None:
    """Blobs of textured violet and pink on glass with its noise, about a third of the slide."""
    rng = np.random.default_rng(0)
    texture = paint_texture(rng)
    blobs = ndimage.zoom(ndimage.gaussian_filter(rng.standard_normal((40, 50)), 3), 20, order=1)
    inside = blobs > np.quantile(blobs, 0.66)
    glass = rng.integers(242, 246, texture.shape, dtype=np.uint8)
    strips = (cut_strip(y, size, texture, glass, inside) for y in range(0, size.height, 240))
    with open_executor("threads", 2) as encoders:
        write_svs(path, size, strips, 0.25, encoders, Coding(tile=240, quality=80))


def paint_texture(rng: np.random.Generator, side: int = 1920) -> Pixels:
    """``(side, side, 3)`` of stroma and nuclei, seamless."""
    coarse, fine = (
        ndimage.gaussian_filter(rng.standard_normal((side, side)), sigma, mode="wrap") * sigma
        for sigma in (9, 1.2)
    )
    nuclei = 1 / (1 + np.exp(-(coarse * 8 - 3.5)))
    eosin = 0.35 + 0.12 * fine + 0.1 * coarse
    density = np.outer(nuclei.ravel(), (0.75, 0.95, 0.45)) + np.outer(
        eosin.ravel(), (0.12, 0.8, 0.4)
    )
    light = 244 * np.exp(-np.maximum(density, 0.02)).reshape(side, side, 3)
    return np.clip(light + rng.normal(0, 2, light.shape), 0, 255).astype(np.uint8)


def cut_strip(
    top: int, size: Size, texture: Pixels, glass: Pixels, inside: NDArray[np.bool_]
) -> Pixels:
    """Rows ``top .. top + 240`` of the slide."""
    height, side = min(240, size.height - top), len(texture)
    down, across = inside.shape
    rows = (np.arange(top, top + height) % side, top // side)
    repeats = -(-size.width // side)
    # Every repeat starts elsewhere, so that no two tiles are the same bytes.
    tissue, bare = (
        np.concatenate(
            [np.roll(image[rows[0]], 240 * k + 97 * rows[1], 1) for k in range(repeats)], 1
        )
        for image in (texture, glass)
    )
    y = np.arange(top, top + height) * down // size.height
    x = np.arange(size.width) * across // size.width
    return np.where(inside[y][:, x, None], tissue[:, : size.width], bare[:, : size.width])


# -- what is read --------------------------------------------------------------------------------


class Task(NamedTuple):
    """Tiles of one slide at `factor` times its own µm/px."""

    path: Path
    factor: float
    tiles: tuple[Box, ...]
    """In pixels of the raster, block by block and row by row."""
    parts: tuple[Box, ...]
    """The same pixels as `tile_slide` reads them."""

    @property
    def side(self) -> int:
        """Level-0 pixels of a tile's side."""
        return round(TILE * self.factor)


def choose(path: Path, factor: float, blocks: int) -> Task:
    """The tiles with tissue of the `blocks` blocks that are spread over those that have most."""
    with open_slide(path) as slide:
        size = slide.raster_size(slide.mpp.x * factor)
        small = slide.read(
            Box(0, 0, *slide.raster_size(slide.mpp.x * factor * 32)), slide.mpp.x * factor * 32
        )
    share = ndimage.uniform_filter((np.ptp(small, axis=2) > 24).astype(np.float32), 7)
    rows, cols = size.height // TILE, size.width // TILE
    kept = share[3::7, 3::7][:rows, :cols] > 0.2
    scored = []
    for row in range(0, kept.shape[0] - SIDE + 1, SIDE):
        for col in range(0, kept.shape[1] - SIDE + 1, SIDE):
            inside = np.argwhere(kept[row : row + SIDE, col : col + SIDE]).tolist()
            boxes = [Box((col + x) * TILE, (row + y) * TILE, TILE, TILE) for y, x in inside]
            block = Box(col * TILE, row * TILE, SIDE * TILE, SIDE * TILE)
            parts = list(_parts(kept[row : row + SIDE, col : col + SIDE], TILE, block))
            scored.append((len(boxes), row, col, boxes, parts))
    full = sorted(scored, reverse=True)[: max(blocks, len(scored) // 4)]
    picked = full[:: max(1, len(full) // blocks)][:blocks]
    tiles = tuple(box for *_, boxes, _ in picked for box in boxes)
    return Task(path, factor, tiles, tuple(box for *_, parts in picked for box in parts))


# -- the contenders ------------------------------------------------------------------------------


def read_wsiseg(task: Task, reader: str = "direct", scaled: bool = True) -> None:
    """As `wsiseg tile` reads a block."""
    config = SlideConfig.model_validate({"reader": reader, "scaled_decode": scaled})
    with open_slide(task.path, config) as slide:
        for box in task.parts:
            out = scratch.array("block", (box.height, box.width, 3))
            slide.read(box, slide.mpp.x * task.factor, out)


def read_tiles(task: Task, open_: Callable[[str], Any], tiles: tuple[Box, ...]) -> int:
    """`read_region` at level 0 tile by tile and Pillow's resize: CLAM's and TRIDENT's data sets."""
    slide = open_(str(task.path))
    for box in tiles:
        corner = int(box.x * task.factor), int(box.y * task.factor)
        image = slide.read_region(corner, 0, (task.side, task.side)).convert("RGB")
        if task.factor != 1:
            image = image.resize((TILE, TILE))
        np.asarray(image)
    slide.close()
    return len(tiles)


def read_openslide(task: Task) -> None:
    """One thread, OpenSlide."""
    read_tiles(task, openslide.OpenSlide, task.tiles)


def read_tiffslide(task: Task) -> None:
    """One thread, tiffslide."""
    read_tiles(task, tiffslide.TiffSlide, task.tiles)


def read_pool(task: Task, pool: type[ThreadPoolExecutor] | type[ProcessPoolExecutor]) -> None:
    """The same with two workers, each with its own handle on half of the tiles."""
    half = len(task.tiles) // 2
    work = partial(read_tiles, task, openslide.OpenSlide)
    with pool(2) as workers:
        list(workers.map(work, [task.tiles[:half], task.tiles[half:]]))


def read_pyvips(task: Task) -> None:
    """Fetch from libvips' own TIFF loader (no Aperio colours), shrink by Pillow's box."""
    import pyvips

    region = pyvips.Region.new(pyvips.Image.tiffload(str(task.path)))
    for box in task.tiles:
        corner = int(box.x * task.factor), int(box.y * task.factor)
        raw = np.frombuffer(region.fetch(*corner, task.side, task.side), np.uint8)
        image = Image.fromarray(raw.reshape(task.side, task.side, -1)[..., :3])
        np.asarray(image if task.factor == 1 else image.resize((TILE, TILE), Image.Resampling.BOX))


def read_fastslide(task: Task) -> None:
    """`read_region` tile by tile and Pillow's box."""
    import fastslide

    slide = fastslide.FastSlide.from_file_path(str(task.path))
    for box in task.tiles:
        corner = int(box.x * task.factor), int(box.y * task.factor)
        image = Image.fromarray(
            slide.read_region(corner, 0, (task.side, task.side)).numpy()[..., :3]
        )
        np.asarray(image if task.factor == 1 else image.resize((TILE, TILE), Image.Resampling.BOX))


def compressed(task: Task) -> tuple[Any, list[bytes]]:
    """The bytes of every compressed tile that the task's tiles touch, each once."""
    touched = {}
    with DirectReader(task.path) as slide:
        level = slide._levels[0]
        for box in task.tiles:
            left, top, right, bottom = (
                int(v * task.factor) for v in (box.x, box.y, box.right, box.bottom)
            )
            for row in range(top // level.tile.height, -(-bottom // level.tile.height)):
                for col in range(left // level.tile.width, -(-right // level.tile.width)):
                    touched[row * level.across + col] = None
        data = [slide._file.read_at(int(level.offsets[i]), int(level.counts[i])) for i in touched]
    return level, data


def decode_all(level: Any, data: list[bytes], shrink: int) -> None:
    """The limit."""
    out = scratch.array("limit", level.shape(shrink))
    for tile in data:
        level.decode(tile, shrink, out)


# -- reading -------------------------------------------------------------------------------------


def contenders(task: Task) -> dict[str, Callable[[], None]]:
    """By name, the first being what the others are measured against."""
    level, data = compressed(task)
    jpeg = level.jpeg_head is not None
    ways: dict[str, Callable[[], None]] = {
        "openslide, tile by tile": partial(read_openslide, task),
        "openslide, 2 threads": partial(read_pool, task, ThreadPoolExecutor),
        "openslide, 2 processes": partial(read_pool, task, ProcessPoolExecutor),
        "tiffslide, tile by tile": partial(read_tiffslide, task),
    }
    peers = {"pyvips": read_pyvips, "fastslide": read_fastslide}
    ways |= {
        f"{name}, tile by tile": partial(read, task)
        for name, read in peers.items()
        if find_spec(name.split(",")[0])
    }
    ways["wsiseg, reader openslide"] = partial(read_wsiseg, task, "openslide")
    ways["wsiseg, exact"] = partial(read_wsiseg, task, scaled=False)
    if task.factor in (2, 4) and jpeg:
        ways["wsiseg, scaled decoding"] = partial(read_wsiseg, task)
        ways["limit, scaled"] = partial(decode_all, level, data, int(task.factor))
    ways["limit, full decode"] = partial(decode_all, level, data, 1)
    return ways


def cpu() -> float:
    """CPU seconds of this process and the children that it has waited for."""
    children = os.times()  # coarse, so that its own time is taken elsewhere
    return time.process_time() + children.children_user + children.children_system


def measure(ways: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each way, in turn; those that fail are left out, with the reason."""
    spent: dict[str, list[float]] = {}
    for name, way in list(ways.items()):
        try:
            way()  # compiling, the disk's cache
        except Exception as error:  # noqa: BLE001  # peers raise whatever they like
            print(f"  {name}: {type(error).__name__}: {str(error)[:100]}")
            del ways[name]
    for _ in range(rounds):
        for name, way in ways.items():
            before = cpu()
            way()
            spent.setdefault(name, []).append(cpu() - before)
    return {name: statistics.median(values) for name, values in spent.items()}


def compare_reading(path: Path, rounds: int, blocks: int) -> None:
    """Print the tables of one slide: half its resolution, its own, and a fraction."""
    with open_slide(path) as slide:
        size, mpp = slide.size, slide.mpp.x
    print(f"\n### Reading {path.name}: {size.width} x {size.height}, {mpp:.4g} µm/px")
    for factor in (2.0, 1.0, 0.5 / 0.263018):
        task = choose(path, factor, blocks if factor > 1 else 2 * blocks)
        took = measure(contenders(task), rounds)
        base, n = took["openslide, tile by tile"], len(task.tiles)
        limit = took["limit, full decode"]
        print(f"\n{n} tiles, {factor:.4g} x the slide's own µm/px\n")
        print("| way | ms a tile | times as fast | of the limit |\n|---|---|---|---|")
        for name, seconds in took.items():
            bound = took.get("limit, scaled", limit) if "scaled" in name else limit
            shares = f"{base / seconds:.1f} | {bound / seconds:.2f}"
            print(f"| {name} | {1e3 * seconds / n:.2f} | {shares} |")


# -- the whole job -------------------------------------------------------------------------------


def tile_like_clam(path: Path, out: Path, boxes: list[Box], size: int) -> None:
    """Tissue from the saturation of a thumbnail, then tile by tile from OpenSlide into HDF5.

    What CLAM (`segmentTissue`, `savePatchIter_bag_hdf5`) and TRIDENT (`WSIPatcher`) do, with the
    tiles that wsiseg keeps, so that both write the same number of them.
    """
    import cv2
    import h5py

    slide = openslide.OpenSlide(str(path))
    level = slide.level_count - 1
    thumbnail = np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]))
    saturation = cv2.medianBlur(cv2.cvtColor(thumbnail[..., :3], cv2.COLOR_RGB2HSV)[..., 1], 7)
    mask = cv2.threshold(saturation, 8, 255, cv2.THRESH_BINARY)[1]
    cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    with h5py.File(out, "w") as file:
        shape = (len(boxes), TILE, TILE, 3)
        images = file.create_dataset("imgs", shape, "u1", chunks=(1, TILE, TILE, 3))
        for i, box in enumerate(boxes):
            region = slide.read_region((box.x * size, box.y * size), 0, (TILE * size, TILE * size))
            images[i] = np.asarray(region.convert("RGB").resize((TILE, TILE)))
    slide.close()


def tile_with_wsiseg(path: Path, out: Path, scaled: bool) -> None:
    """The step `wsiseg tile`, in this process."""
    config = Config.model_validate({"slide": {"scaled_decode": scaled}})
    tile_slide(path, out, config, SerialExecutor())


def compare_jobs(path: Path, rounds: int) -> None:
    """Print the table of the whole job."""
    with tempfile.TemporaryDirectory() as folder:
        count = iter(range(1000))

        def fresh(suffix: str) -> Path:
            return Path(folder, f"{next(count)}{suffix}")

        tile_with_wsiseg(path, first := fresh(".zarr"), True)
        store = SlideStore(first)
        kept = np.argwhere(kept_tiles(store, Config().tissue)).tolist()
        whole = [store.grid.tile_box(row, col) for row, col in kept]
        factor = round(store.mpp / store.slide["mpp"][0])
        ways: dict[str, Callable[[], None]] = {
            "CLAM's and TRIDENT's way": lambda: tile_like_clam(path, fresh(".h5"), whole, factor),
            "wsiseg, exact": lambda: tile_with_wsiseg(path, fresh(".zarr"), False),
            "wsiseg, scaled decoding": lambda: tile_with_wsiseg(path, fresh(".zarr"), True),
        }
        took = measure(ways, rounds)
    print(f"\n### Find the tissue of {path.name} and write all {len(kept)} tiles\n")
    print("| way | CPU s | ms a tile | times as fast |\n|---|---|---|---|")
    base = next(iter(took.values()))
    for name, seconds in took.items():
        print(
            f"| {name} | {seconds:.2f} | {1e3 * seconds / len(kept):.2f} | {base / seconds:.1f} |"
        )


# -- growth --------------------------------------------------------------------------------------


def watch(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak memory (MB) of a command with all its processes."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, sum(share(pid) for pid in family(process.pid)))
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - start, peak


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(other for child in children for other in family(int(child)))]


def share(pid: int) -> float:
    """Proportional share of memory of a process, MB."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def compare_growth(slides: dict[str, Path], rounds: int) -> None:
    """Print the table of time and memory."""
    print("\n### `wsiseg tile` by area and workers (wall seconds, peak MB of all its processes)\n")
    print("| area | executor | workers | s | peak MB |\n|---|---|---|---|---|")
    took: dict[tuple[str, str, int], list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for area, path in slides.items():
            for executor, workers in (("threads", 1), ("threads", 2), ("processes", 2)):
                with tempfile.TemporaryDirectory() as folder:
                    command = [
                        sys.executable, "-m", "wsiseg", "tile", str(path), "-o",
                        f"{folder}/a.zarr", "--executor", executor, "--workers", str(workers),
                    ]  # fmt: skip
                    took.setdefault((area, executor, workers), []).append(watch(command))
    for (area, executor, workers), values in took.items():
        seconds, peak = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"| {area} | {executor} | {workers} | {seconds:.1f} | {peak:.0f} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("slides", nargs="*", type=Path)
    parser.add_argument("--quick", action="store_true", help="a small slide, few rounds")
    parser.add_argument(
        "--folder", type=Path, help="where synthetic slides are kept for the next run"
    )
    parser.add_argument("--parts", default="reading,job,growth", help="which tables")
    given = parser.parse_args()
    rounds, blocks = (3, 2) if given.quick else (5, 6)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        slides = {}
        for times in (1, 2) if given.quick else (1, 2, 4):
            path = slides[f"{times * times} x"] = folder / f"synthetic-{times}.svs"
            if not path.exists():
                write_slide(path, Size(10_000 * times, 8_000 * times))
        largest = path
        if "reading" in given.parts:
            for each in (largest, *given.slides):
                compare_reading(each, rounds, blocks)
        if "job" in given.parts:
            compare_jobs(largest, 3)
        if "growth" in given.parts:
            compare_growth(slides, 1 if given.quick else 3)


if __name__ == "__main__":
    main()
