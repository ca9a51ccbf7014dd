"""Files of a large store, and how many a viewer's first screen opens: formats 3 and 4.

    python benchmarks/levels.py [--side 50000] [--rounds 5]

One synthetic block is repeated everywhere. The first screen is the whole slide in at most 1,600 px:
photo, labels and confidence, as `wsiseg view` cuts them into tiles. Files are counted by an audit
hook.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from unittest.mock import patch

import numpy as np

from wsiseg.annotations import PALETTES
from wsiseg.grid import TileGrid
from wsiseg.pyramid import halve_confidence, halve_labels, write_pyramid
from wsiseg.store import SlideStore, layout, opened, slide_store
from wsiseg.view.scene import TILE, Scene

BLOCK, MPP, SCREEN = 1792, 0.5, 1600
_opened: list[str] = []


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    sys.addaudithook(_note)
    print(f"{given.side:,} x {given.side:,} px, first screen (median of {given.rounds})\n")
    print("| format | shards | folders | files opened | of photo | of labels | CPU ms | clock ms |")
    print("|---|---|---|---|---|---|---|---|")
    for known in (3, 4):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "large.zarr"
            with (
                patch.object(layout, "FORMAT", known),
                patch.object(opened, "FORMAT", known),
                patch.object(slide_store, "FORMAT", known),
            ):
                make_store(path, given.side)
            print(f"| {known} | {describe(path, given.rounds)} |")


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str) and "/c/" in arguments[0]:
        _opened.append(arguments[0])


def make_store(path: Path, side: int) -> None:
    """Make a store of identical blocks, which are links to the files of the first."""
    grid = TileGrid(side, side, 224, 224, BLOCK)
    slide = {
        "name": "large.svs", "path": "large.svs", "identity": "0", "size": [side, side],
        "mpp": [MPP, MPP], "bounds": [0, 0, side, side],
    }  # fmt: skip
    store = SlideStore.create(path, grid, MPP, slide)
    store.create_labels(PALETTES["bcss"])
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 4, (28, 28), dtype=np.uint8).repeat(64, 0).repeat(64, 1)
    trust = draw.integers(90, 255, (112, 112), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    image = np.stack([255 - 40 * labels, trust, labels * 50], axis=-1)
    store.write_image(0, image)
    for level in store.block_levels:
        store.write_labels(0, level, labels, trust)
        labels, trust = halve_labels(labels), halve_confidence(trust)
    for step in ("tile", "stitch"):
        first = store._places(step, 0)
        for block in range(grid.n_blocks):
            for name, place in store._places(step, block).items():
                receipt = store._receipts[place] = store._receipts.get(first[name])
                if block and receipt:
                    file = path / store._key(place)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    os.link(path / store._key(first[name]), file)
            store.mark_done(step, block, "ab" * 32)
        if store.coarse_parts(f"{step}-pyramid"):
            write_pyramid(path, step)


def describe(path: Path, rounds: int) -> str:
    """Print a row of the table."""
    shards = [file for file in path.glob("[!d]*/**/c/**/*") if file.is_file()]
    folders = sum(one.is_dir() for one in path.rglob("*"))
    found = []
    for _ in range(rounds):
        _opened.clear()
        begun = time.process_time(), time.perf_counter()
        show_first_screen(Scene(path))
        taken = time.process_time() - begun[0], time.perf_counter() - begun[1]
        found.append((*taken, list(_opened)))
    files = [file.removeprefix(str(path)) for file in found[-1][2]]
    photo = sum(file.startswith("/image") for file in files)
    labels = sum(file.startswith("/labels/classes") for file in files)
    cpu, clock = (1e3 * median(one[i] for one in found) for i in (0, 1))
    return (
        f"{len(shards):,} | {folders:,} | {photo + 2 * labels:,} | {photo:,} | {labels:,} | "
        f"{cpu:.0f} | {clock:.0f}"
    )


def show_first_screen(scene: Scene) -> None:
    """Request what a viewer shows first: the whole slide."""
    zoom = 0
    while max(scene.size) / 2**zoom > SCREEN:
        zoom += 1
    count = -(-max(scene.size) // (2**zoom * TILE))
    for row in range(count):
        for col in range(count):
            scene.photo(zoom, col, row)
            for kind in ("labels", "confidence"):
                scene.raster(kind, zoom, col, row)


if __name__ == "__main__":
    main()
