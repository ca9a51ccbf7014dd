"""OpenedStore: what every part of a store stands on: its facts, its arrays, its marks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
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
from wsiseg.store.levels import Levels, Place, made_by, pyramid_of
from wsiseg.store.marks import Mark, Marks
from wsiseg.store.nodes import Node
from wsiseg.store.shards import Receipt, ShardedArray

__all__ = ["OpenedStore", "read_meta"]


class OpenedStore:
    """A store's location, facts, grid and levels, and what each step has done of it."""

    location: str | Path
    """Where it lies, and how it is opened again: a `Path`, or a URL as text."""
    path: Path
    """The same for a folder; of a URL, what follows the scheme, for its name and messages."""
    levels: Levels
    """Of the image and of the maps."""

    def __init__(self, path: str | Path, run: str = "") -> None:
        self._run = run
        self.location = path if is_url(path) else Path(path)
        self.path = Path(str(path).partition("://")[2]) if is_url(path) else Path(path)
        self._files = open_files(path)
        try:
            self.meta = read_meta(self._files)
            known = int(self.meta["format"])
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{path}: is not a wsiseg store; run `wsiseg tile` first") from error
        if known not in READABLE:
            advice = "choose another output" if known > FORMAT else "tile the slide again"
            raise StoreError(
                f"{path}: has format {known}, this wsiseg reads {READABLE[0]} to {READABLE[-1]}; "
                f"{advice}, or use the wsiseg that wrote it"
            )
        try:
            self.grid = TileGrid(**self.meta["grid"])
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{path}: is not a wsiseg store; run `wsiseg tile` first") from error
        self.levels = Levels(self.grid, known)
        self._arrays: dict[str, ShardedArray] = {}
        self._marks = Marks(self._files, self.levels)
        self._receipts: dict[Place, Receipt | None] = {}

    @property
    def _group(self) -> Node:
        """The store's root. What a user consolidated is as old as that, and not looked at."""
        return Node(self._files)

    @property
    def mpp(self) -> float:
        """Working µm/px."""
        return float(self.meta["mpp"])

    @property
    def slide(self) -> dict[str, Any]:
        """Facts about the slide, as given to `create`."""
        return dict(self.meta["slide"])

    def is_done(self, step: str, block: int, digest: str) -> bool:
        """Whether `step` finished `block` with exactly this digest."""
        mark = self._marks.read(step, block)
        return mark is not None and mark.digest == digest

    def pending(self, step: str, digest: str | Sequence[str]) -> list[int]:
        """Blocks that `step` has still to do, in order; `digest` is each block's own, or all's.

        Those too that it did, where a file of theirs is lost or was cut since.
        """
        marks = self._marks.read_all(step)
        wanted = [digest] * len(marks) if isinstance(digest, str) else digest
        lost = self._marks.lost(step, marks, self._array_or_none)
        return [
            block
            for block, mark in enumerate(marks)
            if mark is None or mark.digest != wanted[block] or block in lost
        ]

    def plan(self, step: str, digests: Sequence[str], after: str = "") -> tuple[str, list[int]]:
        """Note what `step` is to make of the blocks, so that `finished` knows when it has.

        Parameters
        ----------
        digests
            Of all that makes each block.
        after
            Digest of the whole step before, if there is one.

        Returns
        -------
        Digest of the whole step, and the blocks that are still to be done.
        """
        self._check_current()
        self._lay_out_marks(step)
        whole = digest_of(digests)
        noted = {"blocks": whole, "after": after}
        if self._marks.plan(step) != noted:
            self._group[f"done/{step}"].attrs["plan"] = noted
        return whole, self.pending(step, digests)

    def begin(self, step: str, block: int) -> None:
        """Forget the mark of a block that is about to be written.

        Else a run with other settings that is killed between the writing and the marking would
        leave its pixels under the old mark.

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
        """Record, last of all, that `step` finished `block`, with what this object wrote of it.

        What was written is on the disk before its mark is.

        Raises
        ------
        StoreError
            If another run took over: what was written may lie over its work, which then is not
            done any more.
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
        """The digest of the whole step, if every block was made as it was last planned.

        So must be its coarser levels; a step that reads blocks only asks for `digests`.

        Raises
        ------
        StoreError
            If blocks are missing, were made with different settings, or have lost a file since.
        """
        whole, pyramid = self.digests(step)[0], pyramid_of(step)
        if pyramid in self._marks.steps and self._marks.plan(step):
            self.digests(pyramid, before=step)
        return whole

    def digests(self, step: str, before: str = "") -> tuple[str, list[str]]:
        """Digests of a finished step and of its blocks; `before` is the step that it hangs on.

        Raises
        ------
        StoreError
            As `finished` does, and if `before` was planned anew since.
        """
        (whole, marks, plan), command = self._marked(step), made_by(step)
        if not whole:
            raise StoreError(f"{self.path}: `wsiseg {command}` did not finish here; run it first")
        lost = self._marks.lost(step, marks, self._array_or_none)
        if lost:
            raise StoreError(
                f"{self.path}: {len(lost)} of {len(marks)} blocks that `wsiseg {command}` finished "
                f"lost files since (block {min(lost)} is the first); run it again: it does those"
            )
        earlier = self._marks.plan(before) if before else None
        if plan and earlier and plan["after"] != earlier["blocks"]:
            why = f"`wsiseg {before}` was run with other settings after `wsiseg {command}`"
            if before == command:
                why = "its coarser levels are of an earlier run"
            raise StoreError(f"{self.path}: {why}; run `wsiseg {command}` again")
        return whole, [mark.digest if mark else "" for mark in marks]

    def marked(self, step: str) -> str:
        """As `finished`, but empty if it is not, and files are not looked for: that takes longest.

        One that is lost is told when it is read.
        """
        whole, pyramid = self._marked(step)[0], pyramid_of(step)
        if whole and pyramid in self._marks.steps and self._marks.plan(step):
            coarser, _, plan = self._marked(pyramid)
            if not coarser or (plan and plan["after"] != whole):
                return ""
        return whole

    def planned(self, step: str) -> str | None:
        """What `finished` gives when the step is done as it was last planned; None if unknown."""
        plan = self._marks.plan(step)
        return plan["blocks"] if plan else None

    def _marked(self, step: str) -> tuple[str, list[Mark | None], Mapping[str, str] | None]:
        """Digest of the whole step, empty if it is not finished; its marks and its plan."""
        marks, plan = self._marks.read_all(step), self._marks.plan(step)
        digests = [mark.digest if mark else "" for mark in marks]
        if plan is None:  # of format 2: one digest was all blocks' and the step's
            return digests[0] if len(set(digests)) == 1 else "", marks, plan
        whole = digest_of(digests)
        return whole if whole == plan["blocks"] else "", marks, plan

    def _lay_out_marks(self, step: str) -> None:
        if not self._has_file(f"done/{step}"):
            shards = self._marks.steps[step]
            layout.lay_out_marks(self._group, f"done/{step}", shards.count, shards.names)

    def clear_marks(self, step: str = "") -> None:
        """Forget what was done, by one step and its pyramid or by all, so that it is done again.

        No pixel is deleted.
        """
        for gone in (f"done/{step}", f"done/{pyramid_of(step)}") if step else ("done",):
            if gone in self._group:
                del self._group[gone]

    def _check_current(self) -> None:
        """Refuse to write into a store of an older format."""
        if self.meta["format"] != FORMAT:
            raise StoreError(
                f"{self.path}: has format {self.meta['format']}, of an older wsiseg: it can be "
                f"read and exported; to go on with it, tile the slide again (format {FORMAT})"
            )

    def has_written(
        self, step: str, blocks: Sequence[int], names: Sequence[str]
    ) -> list[list[bool]]:
        """Of each block that is marked as done, whether it has a shard of each of `names`."""

        def look(block: int) -> list[bool]:
            mark = self._marks.read(step, block)
            return [mark is not None and mark.promises(name) for name in names]

        return self._files.each(look, blocks)

    def _places(self, step: str, block: int) -> dict[str, Place]:
        """The shards that a block of a step writes, by name."""
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
        """The file of a shard."""
        return self._array(place.array).shard_key(place.row, place.col)

    def _write(
        self, step: str, name: str, block: int, data: NDArray[Any],
        present: NDArray[np.bool_] | None = None,
    ) -> None:  # fmt: skip
        """Write a block's shard by the name that it has in its step, and keep its receipt."""
        _, row, col = place = self._marks.steps[step].place(name, block)
        receipt = self._array(place.array).write(row, col, data, present)
        self._keep(place, receipt)

    def _keep(self, place: Place, receipt: Receipt | None) -> None:
        """Keep the receipt of a shard that was just written, for the mark."""
        self._receipts[place] = receipt
        if receipt:  # the disk works while the next array is packed
            self._files.begin_sync(self._key(place))

    def _erase(self, step: str, block: int, names: Iterable[str]) -> None:
        """Take a block's shards away."""
        places = [self._marks.steps[step].place(name, block) for name in names]
        self._files.each(lambda place: self._array(place.array).erase(*place[1:]), places)
        for place in places:
            self._receipts.pop(place, None)

    def _forget(self, prefix: str) -> None:
        """Look at these arrays anew when they are next asked for."""
        for key in [key for key in self._arrays if key.startswith(prefix)]:
            del self._arrays[key]

    def _has_array(self, key: str) -> bool:
        """Whether an array is there and whole, as far as its description goes."""
        with suppress(StoreError):
            return bool(self._array(key))
        return False

    def _has_file(self, key: str) -> bool:
        return self._files.read(f"{key}/zarr.json") is not None


def read_meta(files: Files) -> dict[str, Any]:
    """What `SlideStore.create` noted; raises `KeyError` or `ValueError` if it noted nothing."""
    data = files.read("zarr.json")
    if data is None:
        raise KeyError("zarr.json")
    return dict(json.loads(data)["attributes"]["wsiseg"])
