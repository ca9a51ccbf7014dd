"""OpenedStore: the base of all parts of a store: its facts, arrays and marks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsiseg.config import digest_of
from wsiseg.errors import StoreError
from wsiseg.grid import TileGrid
from wsiseg.lock import check_held
from wsiseg.store import layout
from wsiseg.store.files import Files, is_url, open_files
from wsiseg.store.layout import FORMAT, READABLE
from wsiseg.store.levels import Levels, Place, made_by, pyramid_of, steps_to
from wsiseg.store.marks import Mark, Marks
from wsiseg.store.nodes import Node, find_fault
from wsiseg.store.shards import Receipt, ShardedArray

__all__ = ["OpenedStore", "find_root_fault", "read_meta"]


class OpenedStore:
    """A store's location, facts, grid and levels, and the progress of each step."""

    location: str | Path
    """The argument with which it can be opened again: a `Path`, or a URL as a string."""
    path: Path
    """The folder; for a URL, the part after the scheme, for names and messages."""
    levels: Levels
    """Levels of the image and of the maps."""

    def __init__(self, path: str | Path, run: str = "") -> None:
        self._run = run
        self.location = path if is_url(path) else Path(path)
        self.path = Path(str(path).partition("://")[2]) if is_url(path) else Path(path)
        self._files = open_files(path)
        try:
            self.meta = read_meta(self._files)
            version = int(self.meta["format"])
        except (KeyError, TypeError, ValueError) as error:
            if fault := find_root_fault(self._files):
                raise StoreError(
                    f"{path}/zarr.json: is damaged ({fault}); if it is a wsiseg store, delete it, "
                    f"and run the command that made it again"
                ) from error
            raise StoreError(f"{path}: is not a wsiseg store; run `wsiseg tile` first") from error
        if version not in READABLE:
            advice = "choose another output" if version > FORMAT else "tile the slide again"
            raise StoreError(
                f"{path}: has format {version}, this wsiseg reads {READABLE[0]} to {READABLE[-1]}; "
                f"{advice}, or use the wsiseg that wrote it"
            )
        try:
            self.grid = TileGrid(**self.meta["grid"])
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{path}: is not a wsiseg store; run `wsiseg tile` first") from error
        self.levels = Levels(self.grid, version)
        self._arrays: dict[str, ShardedArray] = {}
        self._marks = Marks(self._files, self.levels)
        self._receipts: dict[Place, Receipt | None] = {}

    @property
    def _group(self) -> Node:
        """The store's root; consolidated metadata is ignored, as it may be outdated."""
        return Node(self._files)

    @property
    def mpp(self) -> float:
        """Working µm/px."""
        return float(self.meta["mpp"])

    @property
    def slide(self) -> dict[str, Any]:
        """Facts about the slide, as passed to `create`."""
        return dict(self.meta["slide"])

    def is_done(self, step: str, block: int, digest: str) -> bool:
        """Whether `step` finished `block` with exactly this digest.

        A cluster has a block done again if it loses the worker that just did it: by then, others
        may read its mark.
        """
        mark = self._marks.read(step, block)
        return mark is not None and mark.digest == digest

    def pending(self, step: str, digest: str | Sequence[str]) -> list[int]:
        """Return the blocks that `step` still has to do, in order.

        That includes finished ones that lost a file, or part of one, since. `digest` is one for
        all blocks, or one for each.
        """
        return self._find_pending(step, digest)[0]

    def _find_pending(self, step: str, digest: str | Sequence[str]) -> tuple[list[int], set[int]]:
        """Return the blocks of `pending`, and those of them whose marks promise lost files."""
        marks = self._marks.read_all(step)
        wanted = [digest] * len(marks) if isinstance(digest, str) else digest
        lost = self._marks.lost(step, marks, self._array_or_none)
        pending = [
            block
            for block, mark in enumerate(marks)
            if mark is None or mark.digest != wanted[block] or block in lost
        ]
        return pending, lost

    def plan(self, step: str, digests: Sequence[str], after: str = "") -> tuple[str, list[int]]:
        """Record what `step` is about to make, so that `finished` can tell when it is complete.

        Marks of blocks that lost files are deleted, so that from then on `is_done` tells what the
        run has done.

        Parameters
        ----------
        digests
            One per block, of all its inputs.
        after
            Digest of the whole preceding step, if there is one.

        Returns
        -------
        Digest of the whole step, and the blocks still to do.
        """
        self._check_current()
        self._group.require_group("done")
        self._lay_out_marks(step)
        whole = digest_of(digests)
        plan = {"blocks": whole, "after": after}
        if self._marks.plan(step) != plan:
            self._group[f"done/{step}"].attrs["plan"] = plan
        pending, lost = self._find_pending(step, digests)
        self._marks.forget(step, sorted(lost))
        return whole, pending

    def begin(self, step: str, block: int) -> None:
        """Delete the mark of a block that is about to be written.

        Otherwise a run with other settings that is killed between writing and marking would leave
        its pixels under the old mark.

        Raises
        ------
        StoreError
            If the store is of an older format, or another run took over.
        """
        self._check_current()
        check_held(self.location, self._run)
        self._marks.forget(step, [block])
        for place in self._places(step, block).values():
            self._receipts.pop(place, None)

    def mark_done(self, step: str, block: int, digest: str) -> None:
        """Mark a block as done, with receipts of the shards that this object wrote.

        The shards are flushed to disk before the mark is written.

        Raises
        ------
        StoreError
            If another run took over. The block's mark is then deleted, as its shards may have been
            overwritten.
        """
        places = self._places(step, block)
        self._lay_out_marks(step)
        shards = {name: self._receipts.get(place) for name, place in places.items()}
        self._files.sync(self._key(places[name]) for name, receipt in shards.items() if receipt)
        try:
            check_held(self.location, self._run)
        except StoreError:
            self._marks.forget(step, [block])
            raise
        self._marks.write(step, block, Mark(digest, shards))

    def finished(self, step: str) -> str:
        """Return the digest of the whole step, if every block was made as last planned.

        This includes its coarser levels, and that it was made of what the steps before it hold
        now; steps that read blocks only call `digests`.

        Raises
        ------
        StoreError
            If blocks are missing, were made with different settings, or have lost a file since, or
            if a step before it was planned again since.
        """
        whole, pyramid = self.digests(step)[0], pyramid_of(step)
        if pyramid in self._marks.steps and self._marks.plan(step):
            self.digests(pyramid, before=step)
        self._check_order(steps_to(step))
        return whole

    def digests(self, step: str, before: str = "") -> tuple[str, list[str]]:
        """Return the digests of a finished step and of its blocks; `before` is the step it needs.

        Raises
        ------
        StoreError
            As for `finished`, and if `before` was planned again since.
        """
        (whole, marks, _), command = self._marked(step), made_by(step)
        if not whole:
            raise StoreError(f"{self.path}: `wsiseg {command}` did not finish here; run it first")
        lost = self._marks.lost(step, marks, self._array_or_none)
        if lost:
            raise StoreError(
                f"{self.path}: {len(lost)} of {len(marks)} blocks that `wsiseg {command}` finished "
                f"have lost files (block {min(lost)} is the first); run it again to redo those"
            )
        if before == command and self._is_outdated(step, before):
            why = "its coarser levels are of an earlier run"
            raise StoreError(f"{self.path}: {why}; run `wsiseg {command}` again")
        if before:
            self._check_order((before, step))
        return whole, [mark.digest if mark else "" for mark in marks]

    def _check_order(self, steps: Sequence[str]) -> None:
        """Raise `StoreError` if one of successive steps was planned again since the next one."""
        for at, (before, step) in enumerate(pairwise(steps), 1):
            if self._is_outdated(step, before):
                commands = " and ".join(f"`wsiseg {later}`" for later in steps[at:])
                raise StoreError(
                    f"{self.path}: `wsiseg {before}` was run with other settings after "
                    f"`wsiseg {step}`; run {commands} again"
                )

    def _is_outdated(self, step: str, before: str) -> bool:
        """Whether `before` was planned again since `step`; False if one of them has no plan."""
        plan, earlier = self._marks.plan(step), self._marks.plan(before)
        if not plan or not earlier:
            return False
        return plan.get("after") != earlier.get("blocks")

    def marked(self, step: str) -> str:
        """Like `finished`, but return an empty string if it is not, and do not look for files.

        Looking takes longest; a lost file raises an error when it is read.
        """
        whole, pyramid = self._marked(step)[0], pyramid_of(step)
        if whole and pyramid in self._marks.steps and self._marks.plan(step):
            coarser, _, plan = self._marked(pyramid)
            if not coarser or (plan and plan.get("after") != whole):
                return ""
        return whole

    def planned(self, step: str) -> str | None:
        """Return the digest of the step as last planned; None if there is no plan."""
        plan = self._marks.plan(step)
        return plan.get("blocks") if plan else None

    def _marked(self, step: str) -> tuple[str, list[Mark | None], Mapping[str, str] | None]:
        """Return the digest of the whole step (empty if unfinished), its marks and its plan."""
        marks, plan = self._marks.read_all(step), self._marks.plan(step)
        digests = [mark.digest if mark else "" for mark in marks]
        if plan is None:  # format 2: one digest for the step and all its blocks
            return digests[0] if len(set(digests)) == 1 else "", marks, plan
        whole = digest_of(digests)
        return whole if whole == plan.get("blocks") else "", marks, plan

    def _lay_out_marks(self, step: str) -> None:
        """Create the array of a step's marks, or its description if that is damaged."""
        data = self._files.read(f"done/{step}/zarr.json")
        if data is None or find_fault(data):
            shards = self._marks.steps[step]
            layout.lay_out_marks(self._group, f"done/{step}", shards.count, shards.names)

    def clear_marks(self, step: str = "") -> None:
        """Delete the marks of one step and its pyramid, or of all steps, so that they run again.

        No pixels are deleted.
        """
        for group in (f"done/{step}", f"done/{pyramid_of(step)}") if step else ("done",):
            if group in self._group:
                del self._group[group]

    def _check_current(self) -> None:
        """Raise `StoreError` if the store has an older format, which is never written."""
        if self.meta["format"] != FORMAT:
            raise StoreError(
                f"{self.path}: has format {self.meta['format']}, of an older wsiseg: it can be "
                f"read and exported; to go on with it, tile the slide again (format {FORMAT})"
            )

    def has_written(
        self, step: str, blocks: Sequence[int], names: Sequence[str]
    ) -> list[list[bool]]:
        """Return for each block and each of `names` whether the block's mark lists a shard.

        Raises
        ------
        StoreError
            If a block has no mark.
        """

        def look(block: int) -> list[bool]:
            mark = self._marks.read(step, block)
            if mark is None:  # to take its shards for empty would make wrong pixels
                raise StoreError(f"{self.path}: block {block} of {step} is not done; run it again")
            return [mark.promises(name) for name in names]

        return self._files.each(look, blocks)

    def _places(self, step: str, block: int) -> dict[str, Place]:
        """Return the shards that a block of a step writes, by name."""
        shards = self._marks.steps[step]
        return {name: shards.place(name, block) for name in shards.names}

    def _is_promised(self, place: Place) -> bool:
        """Whether a shard is marked as written."""
        return self._marks.promises(place)

    # -- inner -------------------------------------------------------------------------------

    def _array(self, key: str) -> ShardedArray:
        if key not in self._arrays:
            try:
                self._arrays[key] = ShardedArray(self._files, key, self._promise(key))
            except KeyError as error:
                raise StoreError(
                    f"{self.path}: holds no {key}; run the step that makes it"
                ) from error
        return self._arrays[key]

    def _array_or_none(self, key: str) -> ShardedArray | None:
        return self._array(key) if self._has_array(key) else None

    def _promise(self, key: str) -> Callable[[int, int], bool]:
        return lambda row, col: self._is_promised(Place(key, row, col))

    def _key(self, place: Place) -> str:
        """Return the file of a shard."""
        return self._array(place.array).shard_key(place.row, place.col)

    def _write(
        self, step: str, name: str, block: int, data: NDArray[Any],
        present: NDArray[np.bool_] | None = None,
    ) -> None:  # fmt: skip
        """Write a block's shard under its name in the step, and keep its receipt."""
        _, row, col = place = self._marks.steps[step].place(name, block)
        receipt = self._array(place.array).write(row, col, data, present)
        self._keep(place, receipt)

    def _keep(self, place: Place, receipt: Receipt | None) -> None:
        """Keep the receipt of a shard that was just written, for the mark."""
        self._receipts[place] = receipt
        if receipt:  # flush while the next array is compressed
            self._files.begin_sync(self._key(place))

    def _erase(self, step: str, block: int, names: Iterable[str]) -> None:
        """Delete a block's shards."""
        places = [self._marks.steps[step].place(name, block) for name in names]
        self._files.each(lambda place: self._array(place.array).erase(*place[1:]), places)
        for place in places:
            self._receipts.pop(place, None)

    def _forget(self, prefix: str) -> None:
        """Drop cached arrays, so that they are opened again when next needed."""
        for key in [key for key in self._arrays if key.startswith(prefix)]:
            del self._arrays[key]

    def _has_array(self, key: str) -> bool:
        """Whether an array exists and has a valid description."""
        with suppress(StoreError):
            return bool(self._array(key))
        return False

    def _has_file(self, key: str) -> bool:
        return self._files.read(f"{key}/zarr.json") is not None


def read_meta(files: Files) -> dict[str, Any]:
    """Read the facts that `SlideStore.create` stored; raise `KeyError` or `ValueError` if none."""
    data = files.read("zarr.json")
    if data is None:
        raise KeyError("zarr.json")
    return dict(json.loads(data)["attributes"]["wsiseg"])


def find_root_fault(files: Files) -> str:
    """Say why the root's description is damaged; empty if it is not, or missing."""
    data = files.read("zarr.json")
    return "" if data is None else find_fault(data)
