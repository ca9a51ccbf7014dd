"""check_store: whether every file of a store is as it was written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from wsiseg.errors import StoreError
from wsiseg.geometry import Box
from wsiseg.lock import hold
from wsiseg.store.files import Files, open_files
from wsiseg.store.levels import Place, made_by
from wsiseg.store.marks import Mark, Marks, is_optional
from wsiseg.store.shards import Receipt, ShardedArray
from wsiseg.store.slide_store import SlideStore
from wsiseg.store.whole import WHOLE

__all__ = ["Damage", "StoreCheck", "check_store"]


class Damage(NamedTuple):
    """A file that is not as it was written."""

    step: str
    """Whose work it is: `tile`, `predict`, `stitch`, or the pyramid of one of them."""
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
    marks, begun = Marks(files, store.levels), set[str]()
    damage: list[Damage] = []
    count, unfinished = 0, {}
    for array in WHOLE:
        damage += _check_whole(store, files, array, exact=marks.exact)
        count += len(store.whole_shards(array.partition("/")[0]))
    for step in marks.steps:
        known = marks.read_all(step)
        found, looked = _check_step(files, marks, step, known)
        damage, count = damage + found, count + looked
        lost = {fault.block for fault in found}
        left = sum(mark is None or block in lost for block, mark in enumerate(known))
        begun |= {made_by(step)} if any(known) else set()
        if left and made_by(step) in begun:
            unfinished[step] = left, len(known)
    if damage and forget:
        with hold(location):
            _forget(store, marks, damage)
    return StoreCheck(tuple(damage), count, unfinished, store.meta["format"] > 2)


def _check_whole(store: SlideStore, files: Files, key: str, *, exact: bool) -> list[Damage]:
    """What is wrong with an array that is written in one go."""
    shards, step = store.whole_shards(key.partition("/")[0]), WHOLE[key]
    if not shards:
        return []
    try:
        array = ShardedArray(files, key)
    except (KeyError, StoreError) as error:
        return [Damage(step, None, f"{key}/zarr.json", _describe(error))]
    faults = []
    for row, col, *receipt in shards:
        file = array.shard_key(row, col)
        why = _compare(array, files.read(file), Receipt(*receipt), exact=exact)
        faults.append(Damage(step, None, file, why))
    return [fault for fault in faults if fault.why]


def _check_step(
    files: Files, marks: Marks, step: str, known: Sequence[Mark | None]
) -> tuple[list[Damage], int]:
    """What is wrong with the shards of a step's marked blocks, and how many were looked at."""
    damage, count = [], 0
    marked = [block for block, mark in enumerate(known) if mark]
    for name in marks.steps[step].names:
        places = {block: marks.steps[step].place(name, block) for block in marked}
        for key in dict.fromkeys(place.array for place in places.values()):
            here = [block for block, place in places.items() if place.array == key]
            try:
                array = ShardedArray(files, key)
            except (KeyError, StoreError) as error:
                # One that may be taken away again is not missed; of another, all blocks are lost.
                blocks, why = [] if is_optional(name) else here, _describe(error)
                damage += [Damage(step, block, f"{key}/zarr.json", why) for block in blocks]
                continue
            look = partial(_check_shard, files, array, name, marks, known, places)
            for block, (why, looked) in zip(here, files.each(look, here), strict=True):
                count += looked
                if why and marks.read(step, block) == known[block]:  # else a run was just at it
                    file = array.shard_key(places[block].row, places[block].col)
                    damage.append(Damage(step, block, file, why))
    return damage, count


def _check_shard(
    files: Files, array: ShardedArray, name: str, marks: Marks, known: Sequence[Mark | None],
    places: Mapping[int, Place], block: int,
) -> tuple[str, bool]:  # fmt: skip
    """What is wrong with a block's shard, empty if nothing is; and whether there is one."""
    _, row, col = places[block]
    data, mark = files.read(array.shard_key(row, col)), known[block]
    if mark is not None and mark.shards is not None:
        receipt = mark.shards[name]
        return _compare(array, data, receipt, exact=marks.exact), receipt is not None
    height, width = array.shard
    try:
        array.read(Box(col * width, row * height, width, height).intersect(array.box))
    except StoreError:
        return "cannot be decoded", True
    return "", data is not None


def _describe(error: Exception) -> str:
    """What is wrong with a description that cannot be read."""
    return "is missing" if isinstance(error, KeyError) else "is damaged"


def _compare(
    array: ShardedArray, data: bytes | None, receipt: Receipt | None, *, exact: bool
) -> str:
    """How a file differs from its receipt; empty if it does not.

    Receipts are not `exact` in format 3: their CRC was that of the whole file, a constant.
    """
    if data is None:
        return "is missing" if receipt else ""
    if receipt is None:
        return "is there, though the block is empty by its mark"
    if len(data) != receipt.size:
        return f"has {len(data):,} bytes, not {receipt.size:,}"
    known = array.find_receipt(data)
    if known is None:
        return "does not fit its checksum"
    return "is not the file that was written" if exact and known != receipt else ""


def _forget(store: SlideStore, marks: Marks, damage: Sequence[Damage]) -> None:
    """Have the next run do again what is damaged."""
    for step in marks.steps:
        blocks = {fault.block for fault in damage if fault.step == step}
        marks.forget(step, sorted(block for block in blocks if block is not None))
    for group in {fault.key.partition("/")[0] for fault in damage if fault.block is None}:
        store.forget_whole(group)
