"""Windows of a store's pyramids; the coarse levels are read once and kept whole.

A tile that shows half of a slide touches nearly every shard of its level: thousands of files of a
few hundred bytes each.
"""

from __future__ import annotations

import threading
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsiseg.geometry import Box
from wsiseg.shrink import shrink_mean
from wsiseg.stitch.pyramid import halve_confidence, halve_labels
from wsiseg.store import SlideStore

__all__ = ["Kind", "Levels"]

Kind = Literal["image", "labels", "confidence", "probabilities"]

_MOST_KEPT = 8 * 2**20  # bytes of a level


class Levels:
    """The pyramids of one store, each read by level and window."""

    def __init__(self, store: SlideStore) -> None:
        self._store = store
        self._reading: dict[Kind, threading.Lock] = {}
        self._kept: dict[tuple[Kind, int], NDArray[np.uint8]] = {}

    def factors(self, kind: Kind) -> tuple[int, ...]:
        """Down-sampling of each level."""
        return self._store.image_factors if kind == "image" else self._store.pyramid_factors

    def read(self, kind: Kind, box: Box, level: int) -> NDArray[np.uint8]:
        """A window of a level: ``(h, w, 3)``, ``(h, w)`` or ``(K, h, w)`` uint8.

        Raises
        ------
        StoreError
            If a shard is damaged or lost.
        """
        if box.intersect(self.box(kind, level)) != box or not self._is_kept(kind, level):
            return self._read(kind, box, level)
        kept = self._kept.get((kind, level))
        if kept is None:
            # Once, even if six tiles are asked for at the same time.
            with self._reading.setdefault(kind, threading.Lock()):
                kept = self._keep(kind, level)
        rows, cols = box.slices()
        return kept[rows, cols] if kind == "image" else kept[..., rows, cols]

    def _is_kept(self, kind: Kind, level: int) -> bool:
        box = self.box(kind, level)
        channels = self._classes if kind == "probabilities" else 3 if kind == "image" else 1
        return box.width * box.height * channels <= _MOST_KEPT

    @cached_property
    def _classes(self) -> int:
        return len(self._store.palette.classes)

    def _keep(self, kind: Kind, level: int) -> NDArray[np.uint8]:
        if (kind, level) not in self._kept:
            if level and self._is_kept(kind, level - 1):  # made of the finer one, as the run did
                factors = self.factors(kind)
                finer = self._keep(kind, level - 1)
                found = _coarsen(kind, finer, factors[level] // factors[level - 1])
            else:
                found = self._read(kind, self.box(kind, level), level)
            self._kept[kind, level] = found
        return self._kept[kind, level]

    def box(self, kind: Kind, level: int) -> Box:
        """All of a level."""
        grid, factor = self._store.grid, self.factors(kind)[level]
        return Box(0, 0, -(-grid.width // factor), -(-grid.height // factor))

    def _read(self, kind: Kind, box: Box, level: int) -> NDArray[np.uint8]:
        pixels: NDArray[np.uint8] = getattr(self._store, f"read_{kind}")(box, level)
        return pixels


def _coarsen(kind: Kind, finer: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """The next level of a whole one; a block's sides are multiples of all factors."""
    if kind == "image":
        return shrink_mean(finer, factor)
    if kind == "labels":
        return halve_labels(finer)
    if kind == "confidence":
        return halve_confidence(finer)
    return np.stack([halve_confidence(share) for share in finer])
