"""The part of a store whose arrays are not written by blocks: tissue mask and slide context."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsiseg.store.levels import Place
from wsiseg.store.opened import OpenedStore

__all__ = ["WHOLE", "WholePart"]

WHOLE = {"tissue/mask": "tile", "context/gates": "stitch"}
"""Arrays that are written whole, not block by block, and the step that writes each."""


class WholePart(OpenedStore):
    """Arrays in groups of their own, whose attributes hold the digest and receipts of shards."""

    def whole_shards(self, group: str) -> list[tuple[int, int, int, int]]:
        """Return row, column, size and CRC-32C of each shard of `tissue` or `context`."""
        return [tuple(shard) for shard in self._whole_facts(group).get("shards", ())]

    def forget_whole(self, group: str) -> None:
        """Let the next run make `tissue` or `context` again; the data stays until then."""
        if group in self._group:
            self._group[group].attrs["digest"] = ""

    def _write_whole(self, key: str, data: NDArray[np.uint8], digest: str, **facts: Any) -> None:
        """Write a whole array, then the receipts of its shards to its group."""
        array = self._array(key)
        receipts = array.write_all(data)
        self._files.sync(array.shard_key(*place) for place in receipts)
        shards = [[*place, *receipt] for place, receipt in receipts.items()]
        attributes = {**facts, "digest": digest, "shards": shards}
        self._group[key.partition("/")[0]].attrs.update(attributes)

    def _whole_facts(self, group: str) -> dict[str, Any]:
        """Read a group's attributes; empty if there are none."""
        try:
            return dict(json.loads(self._files.read(f"{group}/zarr.json") or b"")["attributes"])
        except (KeyError, TypeError, ValueError):
            return {}

    def _is_promised(self, place: Place) -> bool:
        if place.array in WHOLE:
            shards = self.whole_shards(place.array.partition("/")[0])
            return any((place.row, place.col) == shard[:2] for shard in shards)
        return super()._is_promised(place)
