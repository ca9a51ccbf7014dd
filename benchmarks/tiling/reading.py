"""Reading alone: our readers, other tools, and the decoder's limit, on the same tiles."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
from measure import Peer, Way, measure, timed
from numpy.typing import NDArray
from slides import TILE, Task, choose

from wsiseg.config import SlideConfig
from wsiseg.slide import open_slide
from wsiseg.slide.direct import DirectReader
from wsiseg.slide.scratch import scratch

FACTORS = (2.0, 1.0, 0.5 / 0.263018)
"""Times a slide's own µm/px."""

BASE = "openslide"


def read_wsiseg(task: Task, reader: str = "direct", scaled: bool = True) -> None:
    """Read as `wsiseg tile` reads a block."""
    config = SlideConfig.model_validate({"reader": reader, "scaled_decode": scaled})
    with open_slide(task.path, config) as slide:
        for box in task.parts:
            out = scratch.array("block", (box.height, box.width, 3))
            slide.read(box, slide.mpp.x * task.factor, out)


def ask_to_read(peer: Peer, task: Task) -> float:
    """Request the CPU seconds of a peer for the same tiles."""
    boxes = [[int(side * task.factor) for side in box] for box in task.parts]
    answer = peer.ask({
        "slide": str(task.path), "tile": TILE, "side": task.side, "boxes": boxes,
        "corners": [[int(box.x * task.factor), int(box.y * task.factor)] for box in task.tiles],
    })  # fmt: skip
    return float(answer["cpu"])


# -- the limit -----------------------------------------------------------------------------------


def touched(task: Task) -> list[int]:
    """List the compressed tiles of level 0 that the task's tiles touch, each once."""
    with DirectReader(task.path) as slide:
        level = slide._levels[0]
    found = {}
    for box in task.tiles:
        sides = (int(v * task.factor) for v in (box.x, box.y, box.right, box.bottom))
        left, top, right, bottom = sides
        for row in range(top // level.tile.height, -(-bottom // level.tile.height)):
            for col in range(left // level.tile.width, -(-right // level.tile.width)):
                found[row * level.across + col] = None
    return list(found)


def load(path: Path, tiles: list[int]) -> list[bytes]:
    """Load their bytes."""
    with DirectReader(path) as slide:
        level = slide._levels[0]
        return [slide._file.read_at(int(level.offsets[i]), int(level.counts[i])) for i in tiles]


def decode_all(path: Path, data: list[bytes], shrink: int, plain: bool = False) -> None:
    """Decode each tile into the same cached memory, and nothing else.

    `plain` memory is aligned as by allocators and in other readers; see `slide.scratch`.
    """
    with DirectReader(path) as slide:
        level = slide._levels[0]
    shape = level.shape(shrink)
    out = aligned(shape) if plain else scratch.array("limit", shape)
    for tile in data:
        level.decode(tile, shrink, out)


def aligned(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Allocate memory that starts on a cache line."""
    memory = np.empty(math.prod(shape) + 64, np.uint8)
    first = -memory.ctypes.data % 64
    return memory[first : first + math.prod(shape)].reshape(shape)


# -- the table -----------------------------------------------------------------------------------


def contenders(task: Task, peers: dict[str, Peer]) -> dict[str, Way]:
    """Return the contenders by name."""
    with DirectReader(task.path) as slide:
        scales = task.factor in slide._levels[0].shrinks
    data = load(task.path, touched(task))
    ways: dict[str, Way] = {name: partial(ask_to_read, peer, task) for name, peer in peers.items()}
    ways["wsiseg, reader openslide"] = timed(partial(read_wsiseg, task, "openslide"))
    ways["wsiseg, exact"] = timed(partial(read_wsiseg, task, scaled=False))
    if scales:
        ways["wsiseg, scaled decoding"] = timed(partial(read_wsiseg, task))
        shrink = int(task.factor)
        ways["limit, scaled"] = timed(partial(decode_all, task.path, data, shrink))
    ways["limit, full decode"] = timed(partial(decode_all, task.path, data, 1))
    plainly = partial(decode_all, task.path, data, 1, plain=True)
    ways["libjpeg-turbo into aligned memory"] = timed(plainly)
    return ways


def compare_reading(path: Path, rounds: int, blocks: int, peers: dict[str, Peer]) -> None:
    """Print the tables of one slide: half its resolution, its own, and a fraction."""
    with open_slide(path) as slide:
        size, mpp = slide.size, slide.mpp.x
    print(f"\n### Reading {path.name}: {size.width} x {size.height}, {mpp:.4g} µm/px")
    for factor in FACTORS:
        task = choose(path, factor, blocks if factor > 1 else 2 * blocks)
        took = measure(contenders(task, peers), rounds)
        n, limit = len(task.tiles), took["limit, full decode"]
        print(f"\n{n} tiles, {factor:.4g} x the slide's own µm/px, {rounds} rounds\n")
        print("| way | ms a tile | times as fast | of the limit |\n|---|---|---|---|")
        for name, seconds in took.items():
            bound = took.get("limit, scaled", limit) if "scaled" in name else limit
            shares = f"{took[BASE] / seconds:.1f} | {bound / seconds:.2f}"
            print(f"| {name} | {1e3 * seconds / n:.2f} | {shares} |", flush=True)
