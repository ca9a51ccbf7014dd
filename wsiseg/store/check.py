"""check_store: whether every file of a store is as it was written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from wsiseg.errors import StoreError
from wsiseg.geometry import Box
from wsiseg.grid import TileGrid
from wsiseg.lock import hold
from wsiseg.store.files import Files, open_files
from wsiseg.store.layout import FORMAT
from wsiseg.store.marks import OPTIONAL, Mark, Marks
from wsiseg.store.shards import Receipt, ShardedArray, receipt_of
from wsiseg.store.slide_store import SlideStore

__all__ = ["Damage", "StoreCheck", "check_store"]

_WHOLE = {"tissue/mask": ("tile", ""), "context/gates": ("stitch", "/0")}
"""Arrays that are written in one go, not block by block: by which step, and how the names of their
files end after row and column."""


class Damage(NamedTuple):
    """A file that is not as it was written."""

    step: str
    """Whose work it is: `tile`, `predict` or `stitch`."""
    block: int | None
    """None for the tissue mask and the slide context, which are written in one go."""
    key: str
    """The file, below the store."""
    why: str


@dataclass(frozen=True)
class StoreCheck:
    """What a look at every file of a store came to."""

    damage: tuple[Damage, ...]
    files: int
    """Files that were looked at."""
    unfinished: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Blocks still to do and blocks in all, of steps that have done some; damaged ones count."""
    checked: bool = True
    """Whether there were checksums to go by; not in a store of format 2."""

    @property
    def whole(self) -> bool:
        """Whether nothing is damaged, and nothing half done."""
        return not self.damage and not self.unfinished


def check_store(location: str | Path, *, forget: bool = True) -> StoreCheck:
    """Read every file of a store and hold it against the checksum in its block's mark.

    Of a store of format 2, whose marks hold none, it is looked at whether every file can be
    decoded.

    Parameters
    ----------
    location
        The ``.zarr`` folder, or its URL.
    forget
        Take the marks of damaged blocks away, so that the next run does them again, and those
        alone. What hangs on them is kept: it was made when they were whole, as no step reads what
        does not fit its checksum. Nothing else is written, and nothing at all if all is whole.

    Raises
    ------
    StoreError
        If it is no store; if it is damaged while another run writes it, or cannot be written.
    """
    store, files = SlideStore(location), open_files(location)
    marks = Marks(files, store.grid)
    damage: list[Damage] = []
    count, unfinished = 0, {}
    for array in _WHOLE:
        damage += _check_whole(store, files, array)
        count += len(store.whole_shards(array.partition("/")[0]))
    for step in marks.arrays:
        known = marks.read_all(step)
        found, looked = _check_step(files, store.grid, marks, step, known)
        damage, count = damage + found, count + looked
        lost = {fault.block for fault in found}
        left = sum(mark is None or block in lost for block, mark in enumerate(known))
        if left and any(known):
            unfinished[step] = left, len(known)
    if damage and forget:
        with hold(location):
            _forget(store, marks, damage)
    return StoreCheck(tuple(damage), count, unfinished, store.meta["format"] == FORMAT)


def _check_whole(store: SlideStore, files: Files, array: str) -> list[Damage]:
    """What is wrong with an array that is written in one go."""
    (step, end), faults = _WHOLE[array], []
    for row, col, *receipt in store.whole_shards(array.partition("/")[0]):
        key = f"{array}/c/{row}/{col}{end}"
        faults.append(Damage(step, None, key, _compare(files.read(key), Receipt(*receipt))))
    if faults and files.read(f"{array}/zarr.json") is None:
        faults.append(Damage(step, None, f"{array}/zarr.json", "is missing"))
    return [fault for fault in faults if fault.why]


def _check_step(
    files: Files, grid: TileGrid, marks: Marks, step: str, known: Sequence[Mark | None]
) -> tuple[list[Damage], int]:
    """What is wrong with the shards of a step's marked blocks, and how many were looked at."""
    damage, count = [], 0
    for name in marks.arrays[step]:
        try:
            array = ShardedArray(files, name)
        except (KeyError, StoreError) as error:
            # One that may be taken away again is not missed; of another, all blocks are lost.
            blocks = [] if name.startswith(OPTIONAL) else range(len(known))
            why = "is missing" if isinstance(error, KeyError) else "is damaged"
            damage += [Damage(step, b, f"{name}/zarr.json", why) for b in blocks if known[b]]
            continue
        marked = [block for block, mark in enumerate(known) if mark]
        keys = [array.shard_key(*divmod(block, grid.block_cols)) for block in marked]
        look = partial(_check_shard, files, array, name, known, grid)
        for block, key, (why, looked) in zip(marked, keys, files.each(look, marked), strict=True):
            count += looked
            if why and marks.read(step, block) == known[block]:  # else a run was just writing it
                damage.append(Damage(step, block, key, why))
    return damage, count


def _check_shard(
    files: Files, array: ShardedArray, name: str, known: Sequence[Mark | None], grid: TileGrid,
    block: int,
) -> tuple[str, bool]:  # fmt: skip
    """What is wrong with a block's shard, empty if nothing is; and whether there is one."""
    row, col = divmod(block, grid.block_cols)
    data, mark = files.read(array.shard_key(row, col)), known[block]
    if mark is not None and mark.shards is not None:
        receipt = mark.shards[name]
        return _compare(data, receipt), receipt is not None
    height, width = array.shard
    try:
        array.read(Box(col * width, row * height, width, height).intersect(array.box))
    except StoreError:
        return "cannot be decoded", True
    return "", data is not None


def _compare(data: bytes | None, receipt: Receipt | None) -> str:
    """How a file differs from its receipt; empty if it does not."""
    if data is None:
        return "is missing" if receipt else ""
    if receipt is None:
        return "is there, though the block is empty by its mark"
    if len(data) != receipt.size:
        return f"has {len(data):,} bytes, not {receipt.size:,}"
    return "" if receipt_of([data]) == receipt else "does not fit its checksum"


def _forget(store: SlideStore, marks: Marks, damage: Sequence[Damage]) -> None:
    """Have the next run do again what is damaged."""
    for step in marks.arrays:
        blocks = {fault.block for fault in damage if fault.step == step}
        marks.forget(step, sorted(block for block in blocks if block is not None))
    for group in {fault.key.partition("/")[0] for fault in damage if fault.block is None}:
        store.forget_whole(group)
