"""Marks: the blocks that a step has done, with a digest of their inputs and receipts of shards.

A block's mark is written last, when its shards are on the disk. It holds their sizes and checksums,
so that a lost or changed shard can be told from one that was never written.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

from wsiseg.store import layout
from wsiseg.store.files import Files
from wsiseg.store.groups import GROUPS
from wsiseg.store.levels import Levels, Place, step_shards
from wsiseg.store.nodes import Node
from wsiseg.store.shards import Receipt, ShardedArray

__all__ = ["Mark", "Marks", "is_optional"]

_DIGEST = 32
_INEXACT = 3
"""Last format in which receipts only held the size, and each mark had its own folder."""
_RECEIPT = struct.Struct("<QI")
_NO_SHARD = Receipt(2**64 - 1, 2**32 - 1)

Shards = Mapping[str, Receipt | None]
"""By name, as in the step's `Shards`; None if the shard is all fill and so has no file."""


class Mark(NamedTuple):
    """The record of a block that is done."""

    digest: str
    """Hex sha256 of its inputs."""
    shards: Shards | None
    """None if the mark is of format 2, which recorded none."""

    def promises(self, name: str) -> bool:
        """Whether the shard of this name was written."""
        return bool(self.shards and self.shards.get(name))


class Marks:
    """The marks of one store."""

    def __init__(self, files: Files, levels: Levels) -> None:
        self._files, self._format = files, levels.format
        self.steps = step_shards(levels)
        """The shards that each step writes."""
        self.exact = self._format > _INEXACT
        """Whether receipts detect a swapped shard of the same size with valid checksums."""

    def read(self, step: str, block: int) -> Mark | None:
        """Return the mark of a block; None if it has none, or a half-written one."""
        return self._parse(step, self._files.read(self._key(step, block)))

    def read_all(self, step: str) -> list[Mark | None]:
        """Return the marks of all blocks, in order."""
        existing = self._files.sizes(f"done/{step}")
        keys = [self._key(step, block) for block in range(self.steps[step].count)]
        present = [key for key in keys if key in existing]
        data = dict(zip(present, self._files.each(self._files.read, present), strict=True))
        return [self._parse(step, data.get(key)) for key in keys]

    def plan(self, step: str) -> Mapping[str, str] | None:
        """Return the step's plan, stored with its marks; None if there is none."""
        plan = Node(self._files, f"done/{step}").attrs.get("plan")
        return None if plan is None else dict(plan)

    def write(self, step: str, block: int, mark: Mark) -> None:
        """Mark a block."""
        shards = mark.shards or {}
        names = self.steps[step].names
        packed = [_RECEIPT.pack(*(shards.get(name) or _NO_SHARD)) for name in names]
        self._files.write(self._key(step, block), [bytes.fromhex(mark.digest), *packed])

    def forget(self, step: str, blocks: Iterable[int]) -> None:
        """Delete the marks of these blocks, where they exist."""
        keys = [self._key(step, block) for block in blocks]
        if len(keys) > 1:  # one listing instead of a request each
            existing = self._files.sizes(f"done/{step}")
            keys = [key for key in keys if key in existing]
        self._files.each(self._files.delete, keys)

    def promises(self, place: Place) -> bool:
        """Whether a shard is marked as written."""
        for step, shards in self.steps.items():
            if entry := shards.find(place):
                mark = self.read(step, entry[1])
                return mark is not None and mark.promises(entry[0])
        return False

    def lost(
        self,
        step: str,
        marks: Sequence[Mark | None],
        open_array: Callable[[str], ShardedArray | None],
    ) -> set[int]:
        """Return marked blocks with a shard that is missing, of another size, or unexpected.

        `open_array` returns an array, or None if there is none. A shard of the right size may
        still be damaged: only `check_store` reads the contents.
        """
        lost, arrays = set[int](), dict[str, tuple[ShardedArray | None, dict[str, int]]]()
        for name, block in product(self.steps[step].names, range(len(marks))):
            mark = marks[block]
            if mark is None or mark.shards is None:
                continue
            key, row, col = self.steps[step].place(name, block)
            if key not in arrays:
                array = open_array(key)
                arrays[key] = array, self._files.sizes(f"{key}/c") if array else {}
            array, sizes = arrays[key]
            if array is None and is_optional(name):
                continue
            receipt = mark.shards[name]
            size = sizes.get(array.shard_key(row, col)) if array else None
            if size != (receipt.size if receipt else None):
                lost.add(block)
        return lost

    def _key(self, step: str, block: int) -> str:
        old = self._format <= _INEXACT
        return f"done/{step}/c/{block}/0" if old else f"done/{step}/c.{block}.0"

    def _parse(self, step: str, data: bytes | None) -> Mark | None:
        if data is not None and len(data) == _DIGEST:
            return Mark(data.hex(), None)
        names = self.steps[step].names
        if data is None or len(data) != layout.mark_length(len(names)):
            return None
        receipts = map(Receipt._make, _RECEIPT.iter_unpack(data[_DIGEST:]))
        shards = {
            name: None if receipt == _NO_SHARD else receipt
            for name, receipt in zip(names, receipts, strict=True)
        }
        return Mark(data[:_DIGEST].hex(), shards)


def is_optional(name: str) -> bool:
    """Whether an array may be deleted later; marks are then ignored for its shards."""
    return GROUPS[name.partition("/")[0]].optional
