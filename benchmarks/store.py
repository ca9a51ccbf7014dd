"""The cost of checksums and syncing: the store without them and as it is now.

    python benchmarks/store.py [--rounds 15]

Pixels are generated so that lz4 compresses them like a slide's (1.7 times). The old way of reading
is kept here: all chunks of a shard are read, then decoded, without checking checksums. The old way
of writing has no checksums, receipts or syncing. Both work on the same arrays in turn in one
process; medians of the rounds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from wsiseg.geometry import Box
from wsiseg.grid import TileGrid
from wsiseg.store import SlideStore, shards
from wsiseg.store.files import Folder, _LocalFile
from wsiseg.store.shards import ShardedArray

TILE, BLOCK, BLOCKS, BATCH = 224, 1792, 2, 64
Times = tuple[float, float]
"""Seconds on the clock, and of the processor."""


class Unchecked(ShardedArray):
    """A reader without checksums."""

    def _cut(self, box: Box, out: NDArray[Any]) -> Iterator[tuple[tuple[int, int], Any]]:
        inside = box.intersect(self.box)
        if inside != box:
            out[...] = self.fill
        if inside.empty:
            return
        down, right = self._per_shard
        height, width = self._chunk[:2]
        for row in range(inside.y // height, -(-inside.bottom // height)):
            for col in range(inside.x // width, -(-inside.right // width)):
                square = Box(col * width, row * height, width, height)
                common = square.intersect(inside)
                chunk = row % down * right + col % right
                piece = shards._Piece(chunk, common.slices(square), out[common.slices(box)])
                yield (row // down, col // right), piece

    def _read_file(self, place: tuple[int, int], pieces: list[Any]) -> bool:
        key = self.shard_key(*place)
        path = f"{self._files.place}/{key}"
        with open(path, "rb", buffering=0) as file, _LocalFile(path) as opened:
            pairs: Any = self._read_index(opened, key)
            index = [(start, length) for start, length in pairs.tolist()]
            stored = [piece for piece in pieces if index[piece.chunk][0] != shards._ABSENT]
            parts = []
            for piece in stored:
                start, length = index[piece.chunk]
                file.seek(start)
                parts.append(file.read(length))
        scratch = np.empty(self._chunk, self.dtype)
        for piece, data in zip(stored, parts, strict=True):
            target = piece.target
            straight = target.shape == self._chunk and target.flags.c_contiguous
            out = target if straight else scratch
            self._codec.decode(memoryview(data)[:-4], out)
            if not straight:
                target[...] = scratch[piece.source]
        return True


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    blocks = [draw_tissue(seed) for seed in range(BLOCKS)]
    print("| codec | work | before, ms CPU | now, ms CPU | ratio (CPU) | ratio (clock) |")
    print("|---|---|---|---|---|---|")
    for codec in ("zstd", "lz4", "none"):
        with tempfile.TemporaryDirectory() as folder:
            grid = TileGrid(BLOCK, BLOCK * BLOCKS, TILE, TILE, BLOCK)
            facts = {"name": "a", "identity": "0"}
            store = SlideStore.create(Path(folder, "a.zarr"), grid, 0.5, facts, codec)
            store.plan("tile", ["ab" * 32] * BLOCKS)
            write(store, blocks)
            for work, ways in {**readers(store), "write": writers(store, blocks)}.items():
                before, now = in_turn(ways, rounds)
                print(
                    f"| {codec} | {work} | {before[1] * 1e3:.1f} | {now[1] * 1e3:.1f} | "
                    f"{now[1] / before[1]:.3f} | {now[0] / before[0]:.3f} |"
                )


def draw_tissue(seed: int) -> NDArray[np.uint8]:
    """Make pixels ``(BLOCK, BLOCK, 3)`` with the entropy of a stained slide."""
    draw = np.random.default_rng(seed)
    rough = draw.normal(0, 25, (BLOCK // 16, BLOCK // 16, 3)).repeat(16, 0).repeat(16, 1)
    smooth = rough + draw.normal(0, 2, (BLOCK // 4, BLOCK // 4, 3)).repeat(4, 0).repeat(4, 1)
    grain = draw.normal(0, 0.25, (BLOCK, BLOCK, 3)).round()
    return np.clip(190 + smooth + grain, 0, 255).astype(np.uint8)


def in_turn(ways: tuple[Callable[[], object], ...], rounds: int) -> list[Times]:
    """Return median times of each way; rounds rotate the order, and the first is not counted."""
    taken: list[list[Times]] = [[] for _ in ways]
    for turn in range(rounds + 1):
        for index in range(len(ways)):
            way = (index + turn) % len(ways)
            started = time.perf_counter(), time.process_time()
            ways[way]()
            ended = time.perf_counter(), time.process_time()
            if turn:
                taken[way].append((ended[0] - started[0], ended[1] - started[1]))
    return [(median(t[0] for t in times), median(t[1] for t in times)) for times in taken]


def readers(store: SlideStore) -> dict[str, tuple[Callable[[], object], ...]]:
    """Return ways to read whole blocks, and batches of random tiles."""
    now = ShardedArray(store._files, "image/0")
    before = Unchecked(store._files, "image/0")
    boxes = [store.grid.block_box(block) for block in range(BLOCKS)]
    draw = np.random.default_rng(0)
    tiles = draw.integers(0, [store.grid.rows, store.grid.cols], (BATCH, 2)).tolist()
    places = [store.grid.tile_box(*tile) for tile in tiles]
    out = np.empty((BATCH, TILE, TILE, 3), np.uint8)
    whole = np.empty((BLOCK, BLOCK, 3), np.uint8)

    def blocks(array: ShardedArray) -> None:
        for box in boxes:
            array.read_into([(box, whole)])

    def batch(array: ShardedArray) -> None:
        array.read_into(zip(places, out, strict=True))

    def windows(array: ShardedArray) -> None:
        for row, col in tiles:
            array.read(Box(col * TILE - 100, row * TILE - 100, 256, 256))

    return {
        f"read {name}": (lambda read=read: read(before), lambda read=read: read(now))
        for name, read in (("blocks", blocks), ("tiles", batch), ("windows", windows))
    }


def writers(
    store: SlideStore, blocks: list[NDArray[np.uint8]]
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return ways to write blocks with coarser levels and marks."""

    def before() -> None:
        with (
            patch.object(shards, "checksum", lambda data: bytes(4)),
            patch.object(shards, "_give_receipt", lambda *_: shards.Receipt(1, 1)),
            patch.object(Folder, "begin_sync", lambda self, key: None),
            patch.object(Folder, "sync", lambda self, keys: None),
        ):
            write(store, blocks)

    return before, lambda: write(store, blocks)


def write(store: SlideStore, blocks: list[NDArray[np.uint8]]) -> None:
    """Write and mark every block."""
    for block, pixels in enumerate(blocks):
        store.begin("tile", block)
        store.write_image(block, pixels)
        store.mark_done("tile", block, "ab" * 32)


if __name__ == "__main__":
    main()
