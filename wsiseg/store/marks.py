"""Marks: which blocks a step has done, from what, and what the shards are known by that it wrote.

A block's mark is written last, when its shards are on the disk. It names each of them with size and
checksum, so that one that is lost or changed is told from one that never was.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from wsiseg.grid import TileGrid
from wsiseg.store import layout
from wsiseg.store.files import Files
from wsiseg.store.shards import Receipt, ShardedArray

__all__ = ["OPTIONAL", "Mark", "Marks"]

OPTIONAL = "probabilities/"
"""Arrays that may be taken away again: what a mark says of their shards then counts for nothing."""

_DIGEST = 32
_RECEIPT = struct.Struct("<QI")
_NO_SHARD = Receipt(2**64 - 1, 2**32 - 1)

Shards = Mapping[str, Receipt | None]
"""By array; None where the block's shard is all fill and so has no file."""


class Mark(NamedTuple):
    """What is known of a block that is done."""

    digest: str
    """Hex sha256 of what made it."""
    shards: Shards | None
    """None if the mark is of format 2, which noted none."""

    def promises(self, array: str) -> bool:
        """Whether a shard of `array` was written."""
        return bool(self.shards and self.shards.get(array))


class Marks:
    """The marks of one store."""

    def __init__(self, files: Files, grid: TileGrid) -> None:
        self._files, self._grid = files, grid
        self.arrays = layout.step_arrays(grid)
        """The arrays that each step writes."""

    def read(self, step: str, block: int) -> Mark | None:
        """The mark of a block; None if it has none, or a half-written one."""
        return self._parse(step, self._files.read(_key(step, block)))

    def read_all(self, step: str) -> list[Mark | None]:
        """The marks of all blocks, in order."""
        there = self._files.sizes(f"done/{step}/c")
        keys = [_key(step, block) for block in range(self._grid.n_blocks)]
        known = [key for key in keys if key in there]
        data = dict(zip(known, self._files.each(self._files.read, known), strict=True))
        return [self._parse(step, data.get(key)) for key in keys]

    def plan(self, step: str) -> Mapping[str, str] | None:
        """What was noted of the step's plan with its marks; None if nothing ever was."""
        data = self._files.read(f"done/{step}/zarr.json")
        noted = json.loads(data)["attributes"].get("plan") if data else None
        return None if noted is None else dict(noted)

    def write(self, step: str, block: int, mark: Mark) -> None:
        """Mark a block."""
        shards = mark.shards or {}
        packed = [_RECEIPT.pack(*(shards.get(name) or _NO_SHARD)) for name in self.arrays[step]]
        self._files.write(_key(step, block), [bytes.fromhex(mark.digest), *packed])

    def forget(self, step: str, blocks: Iterable[int]) -> None:
        """Take marks away, where there are any."""
        keys = [_key(step, block) for block in blocks]
        if len(keys) > 1:  # one question instead of one each
            there = self._files.sizes(f"done/{step}/c")
            keys = [key for key in keys if key in there]
        self._files.each(self._files.delete, keys)

    def lost(
        self, step: str, marks: Sequence[Mark | None], opened: Callable[[str], ShardedArray | None]
    ) -> set[int]:
        """Marked blocks of which a shard is missing, has another size, or should not be there.

        `opened` gives an array, or None if there is none. What has its size may still be changed:
        `check_store` reads all.
        """
        lost = set()
        for name in self.arrays[step]:
            array = opened(name)
            if array is None and name.startswith(OPTIONAL):
                continue
            sizes = self._files.sizes(f"{name}/c") if array else {}
            for block, mark in enumerate(marks):
                if mark is not None and mark.shards is not None:
                    receipt = mark.shards[name]
                    key = array.shard_key(*divmod(block, self._grid.block_cols)) if array else ""
                    if sizes.get(key) != (receipt.size if receipt else None):
                        lost.add(block)
        return lost

    def _parse(self, step: str, data: bytes | None) -> Mark | None:
        if data is not None and len(data) == _DIGEST:
            return Mark(data.hex(), None)
        names = self.arrays[step]
        if data is None or len(data) != layout.mark_length(len(names)):
            return None
        receipts = map(Receipt._make, _RECEIPT.iter_unpack(data[_DIGEST:]))
        shards = {
            name: None if receipt == _NO_SHARD else receipt
            for name, receipt in zip(names, receipts, strict=True)
        }
        return Mark(data[:_DIGEST].hex(), shards)


def _key(step: str, block: int) -> str:
    return f"done/{step}/c/{block}/0"
