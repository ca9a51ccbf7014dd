"""The part of a store that holds the levels too coarse to be written by blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from wsiseg.geometry import Box
from wsiseg.store.levels import LevelShards, Part
from wsiseg.store.opened import OpenedStore

__all__ = ["CoarsePart"]


class CoarsePart(OpenedStore):
    """Coarse levels of image and maps, in shards of many blocks each."""

    def coarse_parts(self, step: str) -> Sequence[Part]:
        """Return the shards that a pyramid step writes; none if blocks write all levels."""
        shards = self._marks.steps.get(step)
        return shards.parts if isinstance(shards, LevelShards) else ()

    def write_coarse(
        self, step: str, name: str, block: int, pixels: Callable[[Box], NDArray[Any] | None]
    ) -> None:
        """Write one shard of a coarse level.

        `name` is ``image``, ``labels/classes``, ``labels/confidence`` or ``probabilities``;
        `pixels` returns ``(h, w, ...)`` uint8 for a box of the level, None if all of it is fill.
        """
        _, row, col = place = self._marks.steps[step].place(name, block)
        self._keep(place, self._array(place.array).write_from(row, col, pixels))
