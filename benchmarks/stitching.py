"""From CAMs to GeoJSON and OME-TIFF against the slide's size: time and peak memory by stage.

    python benchmarks/stitching.py [side ...] [--density real|noise] [--refine] [--simplify UM]
        [--no-peers]

Stores are generated: 35 % of the slide is tissue, CAMs are smooth random fields whose maps have
about as many regions, holes and vertices per megapixel as `lung_scc_HE2.svs` without the CRF
(``real``), or have no smoothness at all (``noise``). The work is done in a separate process with
two threads; seconds are CPU seconds, peaks are those of the process within the stage. If the slide
fits in memory, this is compared with the straightforward way: the whole raster in memory, OpenCV
contours, the json module; and with `rasterio.features.shapes` and a union per class. Last, the time
of the tiny model for the same tiles.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage

from wsiseg.annotations import BACKGROUND, PALETTES
from wsiseg.config import Config, digest_of
from wsiseg.grid import TileGrid
from wsiseg.store import SlideStore

CELLS, PERIOD = 28, 8 * 28 * 2
SHARE = 0.35
PEERS_UP_TO = 20_000
SMOOTHNESS = {"real": 2.0, "noise": 0.0}
"""Standard deviation in CAM cells of the Gaussian over white noise."""
OFFSETS = {"real": (0.0, 3.6, -2.6, -1.3), "noise": (0.0, 0.0, 0.0, 0.0)}
"""Logit added to each class: as on real slides, most of the tissue is stroma."""


def make_store(path: Path, side: int, density: str, refine: bool = False) -> float:
    """Lay out a store that `predict` seems to have finished; how much of it is tissue, in Mpx.

    To `refine`, the CRF wants pixels as well: the same of every block, tinted and grained.
    """
    grid = TileGrid(side, side, 224, 224, 1792)
    facts = {"name": "made.svs", "path": "made.svs", "identity": "made", "size": [side, side],
             "mpp": [0.5, 0.5], "bounds": [0, 0, side, side], "mpp_source": "made"}  # fmt: skip
    store = SlideStore.create(path, grid, 0.5, facts)
    rng = np.random.default_rng(0)
    small = side // 16
    y, x = np.indices((small, small), np.float32) / small - 0.5
    waves = ndimage.zoom(rng.standard_normal((9, 9)).astype(np.float32), small / 9, order=1)
    waves = np.pad(waves, ((0, 1), (0, 1)), "edge")[:small, :small]
    score = np.hypot(x, y) + 0.06 * waves
    tissue = score < np.quantile(score, SHARE)
    store.write_tissue(tissue, 8.0, digest_of("tissue"))
    store.create_cams(PALETTES["bcss"], CELLS, CELLS)
    field = rng.standard_normal((4, PERIOD, PERIOD), np.float32)
    if SMOOTHNESS[density]:
        field = np.stack(
            [ndimage.gaussian_filter(f, SMOOTHNESS[density], mode="wrap") for f in field]
        )
    field *= 3 / field.std()
    field += np.array(OFFSETS[density], np.float32)[:, None, None]
    pixels = make_pixels(rng) if refine else None
    for block in range(grid.n_blocks):
        write_block(store, block, field, tissue, rng, pixels)
    return float(tissue.mean()) * side * side / 1e6


def make_pixels(rng: np.random.Generator) -> np.ndarray:
    """Make a block of pixels in the colours of H&E: patches some 30 px wide, with grain."""
    tint = ndimage.gaussian_filter(rng.standard_normal((112, 112)), 2, mode="wrap")
    tint = ndimage.zoom(tint / tint.std(), 16, order=1, mode="grid-wrap", grid_mode=True)
    grain = rng.normal(0, 8, (1792, 1792, 3))
    pixels = np.array([200, 130, 180]) + 25 * tint[..., None] * np.array([1.0, 1.4, 0.7]) + grain
    return np.clip(pixels, 0, 255).astype(np.uint8)


def write_block(store: SlideStore, block: int, field, tissue, rng, pixels) -> None:  # type: ignore[no-untyped-def]  # arrays
    """Write CAMs of a block's tissue tiles, a random part of the field, and pixels, if given."""
    tiles = list(store.grid.block_tiles(block))
    if tiles:
        (top, left), (bottom, right) = tiles[0], tiles[-1]
        rows, cols = bottom + 1 - top, right + 1 - left
        rolled = np.roll(field, tuple(rng.integers(0, PERIOD, 2)), (1, 2))
        cams = rolled[:, : rows * CELLS, : cols * CELLS].reshape(4, rows, CELLS, cols, CELLS)
        cams = np.ascontiguousarray(cams.transpose(1, 3, 0, 2, 4)).astype(np.float16)
        logits = cams.mean((3, 4), dtype=np.float32)
        for row, col in tiles:
            at = slice(row * 14, row * 14 + 14), slice(col * 14, col * 14 + 14)
            if not tissue[at].any():
                cams[row - top, col - left] = logits[row - top, col - left] = np.nan
        if np.isfinite(logits).any():
            store.write_cams(block, cams, logits)
            if pixels is not None:
                box = store.grid.block_box(block)
                store.write_image(block, pixels[: box.height, : box.width])
    store.mark_done("predict", block, digest_of("cams"))


def memory(name: str) -> float:
    """Read a memory figure of this process in MB."""
    (found,) = re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found) / 1024


class Stages:
    """CPU seconds, wall seconds and peak MB of each stage."""

    def __init__(self) -> None:
        self.rows: dict[str, list[float]] = {}

    def run(self, name: str, work: Callable[[], object]) -> object:
        """Do `work` as a stage."""
        Path("/proc/self/clear_refs").write_text("5")  # lets the peak begin anew
        cpu, wall = time.process_time(), time.perf_counter()
        result = work()
        self.rows[name] = [
            time.process_time() - cpu, time.perf_counter() - wall, memory("VmHWM"),
        ]  # fmt: skip
        return result


def work(path: Path, config: Config, small: Path) -> None:
    """Run all stages in a separate process, first on a small store to exclude compilation."""
    from wsiseg.compute import open_executor
    from wsiseg.export import export_ome_tiff
    from wsiseg.outline import outline_regions
    from wsiseg.qupath import write_geojson
    from wsiseg.stitch import stitch_labels

    for store, stages in ((small, Stages()), (path, Stages())):
        with open_executor("threads", 2) as pool:
            stages.run("stitch + rasters", lambda s=store: stitch_labels(s, config, pool))
            found = stages.run("outline", lambda s=store: outline_regions(s, config, pool))
        out = store.with_suffix(".geojson")
        stages.run("GeoJSON", lambda a=found, o=out: write_geojson(a, o))
        tiff = store.with_suffix(".ome.tiff")
        stages.run("OME-TIFF", lambda s=store, o=tiff: export_ome_tiff(SlideStore(s), o))
    vertices = sum(len(q) for r in found.regions for q in (r.exterior, *r.holes))
    megabytes = out.stat().st_size / 1e6
    print(json.dumps([stages.rows, len(found.regions), vertices, megabytes]))


def read_whole(path: Path) -> np.ndarray:
    """Read all labels into memory."""
    store = SlideStore(path)
    return store.read_labels(store.grid.box)


def contours(path: Path) -> None:
    """Use the whole raster, OpenCV's contours per class, and the json module."""
    import cv2

    stages = Stages()

    def trace() -> int:
        labels, features = read_whole(path), []
        for label in range(4):
            mask = (labels == label).astype(np.uint8)
            found, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            features += [
                {"type": "Feature", "properties": {"class": label},
                 "geometry": {"type": "Polygon", "coordinates": [c[:, 0].tolist()]}}
                for c in found
            ]  # fmt: skip
        text = json.dumps({"type": "FeatureCollection", "features": features})
        path.with_suffix(".cv.geojson").write_text(text)
        return len(features)

    count = stages.run("whole raster, OpenCV contours, json", trace)
    print(json.dumps([stages.rows, count, 0, 0]))


def shapes(path: Path) -> None:
    """Use the whole raster, rasterio's shapes, and shapely's union per class."""
    import shapely
    from rasterio.features import shapes as find

    stages = Stages()

    def trace() -> int:
        labels = read_whole(path)
        found = list(find(labels, mask=labels != BACKGROUND, connectivity=4))
        polygons = np.array([shapely.geometry.shape(g) for g, _ in found])
        values = np.array([v for _, v in found])
        for label in range(4):
            shapely.union_all(polygons[values == label])
        return len(found)

    count = stages.run("whole raster, rasterio shapes, union", trace)
    print(json.dumps([stages.rows, count, 0, 0]))


def predict_rate() -> float:
    """Measure the tiny model's CPU seconds per megapixel of tiles in memory."""
    from wsiseg.model.trained import load_trained
    from wsiseg.predict import run_model

    source = load_trained("tiny")
    images = np.random.default_rng(0).integers(0, 256, (32, 224, 224, 3), np.uint8)
    run_model(source, images, Config().predict)
    started = time.process_time()
    for _ in range(3):
        run_model(source, images, Config().predict)
    return (time.process_time() - started) / (3 * 32 * 224 * 224 / 1e6)


def child(*arguments: str) -> list:  # type: ignore[type-arg]  # JSON
    """Return the output of this file run as a separate process."""
    command = [sys.executable, __file__, "--child", *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Print a table for each side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sides", type=int, nargs="*", default=[10_000, 20_000, 40_000, 80_000])
    parser.add_argument("--density", choices=SMOOTHNESS, default="real")
    parser.add_argument("--refine", action="store_true")
    parser.add_argument("--simplify", type=float, default=0.0)
    parser.add_argument("--no-peers", action="store_true", help="no other ways, and no model")
    given = parser.parse_args()
    config = {"stitch": {"refine": given.refine}, "outline": {"simplify_um": given.simplify}}
    print("| side | tissue Mpx | stage | CPU s | CPU s a tissue Mpx | wall s | peak MB |")
    print("|---|---|---|---|---|---|---|")
    for side in given.sides:
        with tempfile.TemporaryDirectory() as folder:
            path, small = Path(folder) / "made.zarr", Path(folder) / "small.zarr"
            make_store(small, 2000, given.density, given.refine)
            tissue = make_store(path, side, given.density, given.refine)
            found = child("work", str(path), json.dumps(config), str(small))
            results = [found]
            if side <= PEERS_UP_TO and not given.no_peers:
                peers = [("contours", "cv2"), ("shapes", "rasterio")]
                results += [child(p, str(path)) for p, m in peers if importlib.util.find_spec(m)]
            rows = {name: row for result in results for name, row in result[0].items()}
            for name, (cpu, wall, peak) in rows.items():
                print(f"| {side} | {tissue:.0f} | {name} | {cpu:.1f} | {cpu / tissue:.4f} "
                      f"| {wall:.1f} | {peak:.0f} |")  # fmt: skip
            print(f"| {side} | {tissue:.0f} | {found[1]:,} regions, {found[2]:,} vertices, "
                  f"{found[3]:.0f} MB | | | | |", flush=True)  # fmt: skip
    if not given.no_peers:
        print(f"\nThe tiny model: {child('predict'):.4f} CPU s a Mpx of tiles")


if __name__ == "__main__":
    if sys.argv[1:2] != ["--child"]:
        main()
    elif sys.argv[2] == "work":
        work(Path(sys.argv[3]), Config.model_validate_json(sys.argv[4]), Path(sys.argv[5]))
    elif sys.argv[2] == "predict":
        print(json.dumps(predict_rate()))
    else:
        {"contours": contours, "shapes": shapes}[sys.argv[2]](Path(sys.argv[3]))
