"""check_store: verify that every file of a store is still as it was written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from wsiseg.config import digest_of
from wsiseg.errors import StoreError
from wsiseg.geometry import Box
from wsiseg.lock import hold
from wsiseg.store.descriptions import find_faults
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
    """The step that wrote it: `tile`, `predict`, `stitch`, or a pyramid of these."""
    block: int | None
    """None for what is not written by blocks: the tissue mask, the slide context, descriptions of
    groups, and a step's marks as a whole."""
    key: str
    """The file, relative to the store."""
    why: str


@dataclass(frozen=True)
class StoreCheck:
    """The result of checking every file of a store."""

    damage: tuple[Damage, ...]
    files: int
    """Number of files with data that were checked."""
    unfinished: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By started step: remaining blocks, including damaged ones, and blocks in total."""
    checked: bool = True
    """Whether the store has checksums; one of format 2 has none."""

    @property
    def whole(self) -> bool:
        """Whether nothing is damaged and every started step is finished."""
        return not self.damage and not self.unfinished


def check_store(location: str | Path, *, forget: bool = True) -> StoreCheck:
    """Read every file of a store and compare it with the checksum in its block's mark.

    The marks of format 2 hold no checksums: there, check that every file can be decoded. Neither
    have descriptions (``zarr.json``), which the next run writes anew: check that they are of the
    form that we write.

    Parameters
    ----------
    location
        The ``.zarr`` folder, or its URL.
    forget
        Whether to remove the marks of damaged blocks, so that the next run redoes exactly those.
        Results of later steps are kept: they were made before the damage, as no step reads data
        that does not match its checksum. Nothing else is written.

    Raises
    ------
    StoreError
        If it is not a store, or if marks cannot be removed because another run is writing it.
    """
    store, files = SlideStore(location), open_files(location)
    marks, started = Marks(files, store.levels), set[str]()
    unreadable = find_faults(files, marks) if marks.exact else []
    described = [Damage(step, None, f"{path}/zarr.json", why) for step, path, why in unreadable]
    damage: list[Damage] = []
    count, unfinished = 0, {}
    for array in WHOLE:
        damage += _check_whole(store, files, array, exact=marks.exact)
        count += len(store.whole_shards(array.partition("/")[0]))
    for step in marks.steps:
        step_marks = marks.read_all(step)
        faults, checked = _check_step(files, marks, step, step_marks)
        damage, count = damage + faults, count + checked
        damaged = {fault.block for fault in faults}
        remaining = sum(mark is None or block in damaged for block, mark in enumerate(step_marks))
        if not remaining and all(fault.path != f"done/{step}" for fault in unreadable):
            described += _check_plan(marks, step, step_marks)
        started |= {made_by(step)} if any(step_marks) else set()
        if remaining and made_by(step) in started:
            unfinished[step] = remaining, len(step_marks)
    if damage and forget:
        with hold(location):
            _forget(store, marks, damage)
    return StoreCheck((*described, *damage), count, unfinished, store.meta["format"] > 2)


def _check_whole(store: SlideStore, files: Files, key: str, *, exact: bool) -> list[Damage]:
    """Check an array that is written whole."""
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


def _check_plan(marks: Marks, step: str, step_marks: Sequence[Mark | None]) -> list[Damage]:
    """Check that the marks of a finished step are those that it planned."""
    plan = marks.plan(step)
    whole = digest_of([mark.digest if mark else "" for mark in step_marks])
    if plan is None or plan.get("blocks") == whole:
        return []
    return [Damage(step, None, f"done/{step}", "are not the marks that were planned")]


def _check_step(
    files: Files, marks: Marks, step: str, step_marks: Sequence[Mark | None]
) -> tuple[list[Damage], int]:
    """Check the shards of a step's marked blocks; return the damage and the number checked."""
    damage, count = [], 0
    marked = [block for block, mark in enumerate(step_marks) if mark]
    for name in marks.steps[step].names:
        places = {block: marks.steps[step].place(name, block) for block in marked}
        for key in dict.fromkeys(place.array for place in places.values()):
            owners = [block for block, place in places.items() if place.array == key]
            try:
                array = ShardedArray(files, key)
            except (KeyError, StoreError) as error:
                lost = _lost_without(files, name, {at: step_marks[at] for at in owners})
                why = _describe(error)
                damage += [Damage(step, block, f"{key}/zarr.json", why) for block in lost]
                continue
            check = partial(_check_shard, files, array, name, marks, step_marks, places)
            for block, (why, exists) in zip(owners, files.each(check, owners), strict=True):
                count += exists
                # If the mark has changed, a run is just rewriting the block.
                if why and marks.read(step, block) == step_marks[block]:
                    file = array.shard_key(places[block].row, places[block].col)
                    damage.append(Damage(step, block, file, why))
    return damage, count


def _lost_without(files: Files, name: str, owners: Mapping[int, Mark | None]) -> list[int]:
    """Return the blocks that are lost without the description of the array of this name.

    None are if the array is of an optional group of which nothing is left.
    """
    if not is_optional(name):
        return [*owners]
    if not files.sizes(f"{name.partition('/')[0]}/"):
        return []
    return [block for block, mark in owners.items() if mark is not None and mark.promises(name)]


def _check_shard(
    files: Files, array: ShardedArray, name: str, marks: Marks, step_marks: Sequence[Mark | None],
    places: Mapping[int, Place], block: int,
) -> tuple[str, bool]:  # fmt: skip
    """Return what is wrong with a block's shard (empty: nothing), and whether it has one."""
    _, row, col = places[block]
    data, mark = files.read(array.shard_key(row, col)), step_marks[block]
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
    """Say why an array's description cannot be read."""
    return "is missing" if isinstance(error, KeyError) else "is damaged"


def _compare(
    array: ShardedArray, data: bytes | None, receipt: Receipt | None, *, exact: bool
) -> str:
    """Describe how a file differs from its receipt; empty if it does not.

    Receipts of format 3 are not `exact`: they hold the CRC of the whole file, a constant.
    """
    if data is None:
        return "is missing" if receipt else ""
    if receipt is None:
        return "exists, although the block's mark says that it is empty"
    if len(data) != receipt.size:
        return f"has {len(data):,} bytes, not {receipt.size:,}"
    actual = array.find_receipt(data)
    if actual is None:
        return "does not match its checksum"
    return "is not the file that was written" if exact and actual != receipt else ""


def _forget(store: SlideStore, marks: Marks, damage: Sequence[Damage]) -> None:
    """Remove marks, so that the next run redoes what is damaged."""
    for step in marks.steps:
        blocks = {fault.block for fault in damage if fault.step == step}
        marks.forget(step, sorted(block for block in blocks if block is not None))
    for group in {fault.key.partition("/")[0] for fault in damage if fault.block is None}:
        store.forget_whole(group)
