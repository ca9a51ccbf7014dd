"""The part of a store whose arrays are written in one go: the tissue mask, the slide context."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsiseg.store.levels import Place
from wsiseg.store.opened import OpenedStore

__all__ = ["WHOLE", "WholePart"]

WHOLE = {"tissue/mask": "tile", "context/gates": "stitch"}
"""Arrays that are written in one go, not block by block, and whose step writes them."""


class WholePart(OpenedStore):
    """Arrays each in a group of its own, whose attributes say what made it and its shards."""

    def whole_shards(self, group: str) -> list[tuple[int, int, int, int]]:
        """Row, column, size and CRC-32C of each shard of `tissue` or `context`."""
        return [tuple(shard) for shard in self._whole_facts(group).get("shards", ())]

    def forget_whole(self, group: str) -> None:
        """Have `tissue` or `context` made again by the next run; it stays until then."""
        if group in self._group:
            self._group[group].attrs["digest"] = ""

    def _write_whole(self, key: str, data: NDArray[np.uint8], digest: str, **facts: Any) -> None:
        """Write all of an array, then in its group what its shards are known by."""
        array = self._array(key)
        written = array.write_all(data)
        self._files.sync(array.shard_key(*place) for place in written)
        shards = [[*place, *receipt] for place, receipt in written.items()]
        noted = {**facts, "digest": digest, "shards": shards}
        self._group[key.partition("/")[0]].attrs.update(noted)

    def _whole_facts(self, group: str) -> dict[str, Any]:
        """What was noted of a group; empty if nothing was."""
        try:
            return dict(json.loads(self._files.read(f"{group}/zarr.json") or b"")["attributes"])
        except (KeyError, TypeError, ValueError):
            return {}

    def _is_promised(self, place: Place) -> bool:
        if place.array in WHOLE:
            shards = self.whole_shards(place.array.partition("/")[0])
            return any((place.row, place.col) == shard[:2] for shard in shards)
        return super()._is_promised(place)
