"""Times of the viewer's server on a slide of 100,000 x 80,000 px with 100,000 regions.

    python benchmarks/viewer.py [--folder FOLDER] [--requests 2000] [--browser PICTURES]

The slide is made once, from one repeated block. Requests come over six connections, as from a
browser that pans and zooms at random: photo, labels, confidence, scores, outlines and hover. With
`--browser`, headless Chromium uses the page instead, and saves screenshots. A folder that contains
a run is used as it is, so that any run can be measured.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from wsiseg.annotations import PALETTES, Annotations, Region
from wsiseg.grid import TileGrid
from wsiseg.pyramid import halve_confidence, halve_labels, write_pyramid
from wsiseg.qupath import write_geojson
from wsiseg.store import SlideStore

HEIGHT, WIDTH, BLOCK, MPP = 80_000, 100_000, 1792, 0.5
ROWS, COLS = 5, 8  # regions of a block
CONNECTIONS = 6


def main() -> None:
    """Make the slide if necessary, serve it, send requests, and print times."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--browser", type=Path, metavar="PICTURES")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp())
    if not (folder / "geojson").exists():
        started = time.perf_counter()
        make_run(folder)
        print(f"made {folder} in {time.perf_counter() - started:.0f} s")
    if given.browser:
        from viewer_page import drive

        drive(folder, given.browser)
        return
    command = [sys.executable, "-m", "wsiseg", "view", str(folder), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(re.findall(r":(\d+)/", server.stdout.readline())[0])
            measure(port, server.pid, given.requests)
        finally:
            server.terminate()


def make_run(folder: Path) -> None:
    """Make a finished run of one slide, without the slide itself."""
    grid = TileGrid(HEIGHT, WIDTH, 224, 224, BLOCK)
    slide = {
        "name": "large.svs", "path": "large.svs", "identity": "0", "size": [WIDTH, HEIGHT],
        "mpp": [MPP, MPP], "bounds": [0, 0, WIDTH, HEIGHT],
    }  # fmt: skip
    path = folder / "slides" / "large.zarr"
    store = SlideStore.create(path, grid, MPP, slide)
    store.create_labels(PALETTES["bcss"])
    labels, rings = paint_block()
    texture = np.random.default_rng(0).integers(0, 40, (112, 112, 3)).astype(np.uint8)
    shades = np.array([(225, 170, 200), (240, 205, 220), (170, 120, 180), (200, 190, 190)] * 64)
    image = shades[labels].astype(np.uint8) - np.tile(texture, (16, 16, 1))
    confidence = np.where(labels < 255, 255 - image[..., 0] // 2, 0).astype(np.uint8)
    store.write_image(0, image)
    for level in store.block_levels:
        store.write_labels(0, level, labels, confidence)
        labels, confidence = halve_labels(labels), halve_confidence(confidence)
    repeat_block(path, grid)
    for step in ("tile", "stitch"):
        store.plan(step, ["ab" * 32] * grid.n_blocks)
        first = store._places(step, 0)
        for block in range(grid.n_blocks):
            for name, place in store._places(step, block).items():
                store._receipts[place] = store._receipts.get(first[name])
            store.mark_done(step, block, "ab" * 32)
        write_pyramid(path, step)
    regions = [
        Region(
            label,
            ring + np.array([x * BLOCK, y * BLOCK], np.int32),
            (),
            area_of(ring),
            0.5 + label / 10,
        )
        for y in range(grid.block_rows)
        for x in range(grid.block_cols)
        for label, ring in rings
        if ring[:, 0].max() + x * BLOCK <= WIDTH and ring[:, 1].max() + y * BLOCK <= HEIGHT
    ]
    print(f"{len(regions):,} regions")
    annotations = Annotations("large.svs", PALETTES["bcss"], tuple(regions), (1.0, 1.0), MPP)
    write_geojson(annotations, folder / "geojson" / "large.geojson", "detection")


def paint_block() -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Paint ellipses with ragged borders on background, and return their outlines."""
    from PIL import Image, ImageDraw

    picture = Image.new("L", (BLOCK, BLOCK), 255)
    draw, rng, rings = ImageDraw.Draw(picture), np.random.default_rng(1), []
    for row in range(ROWS):
        for col in range(COLS):
            angles = np.linspace(0, 2 * np.pi, 120, endpoint=False)
            radius = rng.uniform(0.7, 1.0, 120)
            x = (col + 0.5 + 0.42 * radius * np.cos(angles)) * BLOCK / COLS
            y = (row + 0.5 + 0.42 * radius * np.sin(angles)) * BLOCK / ROWS
            ring = np.column_stack([x, y]).astype(np.int32)
            label = (row + col) % 4
            draw.polygon([tuple(point) for point in ring.tolist()], fill=label)
            rings.append((label, np.concatenate([ring, ring[:1]])))
    return np.asarray(picture), rings


def area_of(ring: np.ndarray) -> int:
    """Return the pixels within a closed ring."""
    x, y = ring.T.astype(float)
    return round(abs(float(x[:-1] @ y[1:] - x[1:] @ y[:-1])) / 2)


def repeat_block(path: Path, grid: TileGrid) -> None:
    """Copy the files of the first block to every block, under other names."""
    for first in [file for file in path.rglob("0") if file.is_file() and "done" not in file.parts]:
        row_folder = first.parent
        for row in range(grid.block_rows):
            folder = row_folder.with_name(str(row))
            folder.mkdir(exist_ok=True)
            for col in range(grid.block_cols):
                if (row, col) != (0, 0):
                    os.link(first, folder / str(col))


def measure(port: int, pid: int, count: int) -> None:
    """Print the times of `count` requests, and the server's memory after them."""
    first = http.client.HTTPConnection("127.0.0.1", port)
    slide = get(first, "/api/slides")["runs"][0]["slides"][0]["id"]
    started = time.perf_counter()
    scene = get(first, f"/api/slides/{slide}")
    opened = time.perf_counter()
    regions = get(first, f"/api/slides/{slide}/regions")
    read = time.perf_counter()
    print(
        f"opened in {opened - started:.1f} s; {regions['count']:,} regions of "
        f"{regions['vertices']:,} vertices read in {read - opened:.1f} s, {memory(pid):.0f} MB"
    )
    rng = random.Random(0)
    kinds = ["photo"] * 4 + ["labels"] * 3 + ["confidence", "outlines", "hover"]
    kinds += ["score-1"] * bool(scene["scores"])
    asked = [ask(rng, scene, rng.choice(kinds)) for _ in range(count)]
    times: dict[str, list[float]] = defaultdict(list)
    busy = cpu(pid)
    started = time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for found in pool.map(lambda n: send(port, asked[n::CONNECTIONS]), range(CONNECTIONS)):
            for kind, seconds in found:
                times[kind].append(1000 * seconds)
                times["all"].append(1000 * seconds)
    print(f"{count / (time.perf_counter() - started):.0f} requests a second")
    print(f"{'':12} {'n':>6} {'median':>8} {'95 %':>8} {'most':>8}  ms")
    for kind, values in times.items():
        middle, high = np.percentile(values, (50, 95))
        print(f"{kind:12} {len(values):6} {middle:8.1f} {high:8.1f} {max(values):8.1f}")
    print(f"CPU of the server: {1000 * (cpu(pid) - busy) / count:.1f} ms a request")
    handles = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    print(f"server: {memory(pid):.0f} MB, {handles} open files")


def ask(rng: random.Random, scene: dict, kind: str) -> tuple[str, str]:
    """Return kind and address of a request at a random position."""
    x, y = rng.random() * scene["width"], rng.random() * scene["height"]
    if kind == "hover":
        return kind, f"/api/slides/{scene['id']}/hover?x={x}&y={y}"
    if kind == "outlines":
        box = f"x0={x}&y0={y}&x1={x + 2500}&y1={y + 1800}"
        return kind, f"/api/slides/{scene['id']}/outlines?{box}&tolerance=0.5"
    zoom = rng.choice(range(scene["coarsest"] + 1))
    side = scene["tile"] * 2**zoom
    version = scene["layers"][kind.partition("-")[0]]
    place = f"{zoom}/{int(x // side)}/{int(y // side)}"
    return kind, f"/tiles/{scene['id']}/{kind}/{version}/{place}"


def send(port: int, asked: list[tuple[str, str]]) -> list[tuple[str, float]]:
    """Send requests one after the other on one connection; return kind and seconds of each."""
    connection, found = http.client.HTTPConnection("127.0.0.1", port), []
    for kind, path in asked:
        started = time.perf_counter()
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        assert answer.status in (200, 204), (path, answer.status)
        found.append((kind, time.perf_counter() - started))
    connection.close()
    return found


def get(connection: http.client.HTTPConnection, path: str) -> dict:
    """Return the server's answer as JSON."""
    connection.request("GET", path)
    return json.loads(connection.getresponse().read())


def cpu(pid: int) -> float:
    """Return the CPU seconds of a process."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1000


if __name__ == "__main__":
    main()
