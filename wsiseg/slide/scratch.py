"""Memory that a thread reuses, since fresh pages cost half as much as decoding."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Scratch", "Shape", "TileRing", "scratch"]

Shape = tuple[int, int, int]

_RING_BYTES = 8 * 2**20
"""Size of the buffer of decoded tiles: those that a row of squares leaves to the next one fit."""
_MISALIGNMENT = 8
"""Bytes by which memory is off the processor's alignment. libjpeg-turbo writes aligned rows past
the cache, straight to memory: decoding then takes 13 % longer, averaging 40 %."""


class Scratch(threading.local):
    """The memory of one thread, for all slides that it reads."""

    def __init__(self) -> None:
        self.tiles = TileRing(_RING_BYTES)
        """Tiles that are likely to be needed again."""
        self._buffers: dict[str, NDArray[np.uint8]] = {}

    def array(self, name: str, shape: Shape) -> NDArray[np.uint8]:
        """Return an uninitialised array; it shares memory with earlier ones of the same `name`."""
        size = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size:
            buffer = self._buffers[name] = _allocate(size)
        return buffer[:size].reshape(shape)


class TileRing:
    """Tiles by key in one buffer of `size` bytes; new ones overwrite the oldest."""

    def __init__(self, size: int) -> None:
        self._bytes = _allocate(size)  # the system supplies pages when they are first used
        self._tiles: OrderedDict[Hashable, tuple[int, NDArray[np.uint8]]] = OrderedDict()
        self._end = 0

    def get(self, key: Hashable) -> NDArray[np.uint8] | None:
        """Return the tile, or ``None``; it is valid until the next `reserve`."""
        entry = self._tiles.get(key)
        return None if entry is None else entry[1]

    def reserve(self, shape: Shape) -> NDArray[np.uint8]:
        """Return memory for a tile; once it is filled, `keep` it under its key."""
        size = math.prod(shape)
        if size > self._bytes.size:
            return _allocate(size).reshape(shape)
        if self._end + size > self._bytes.size:
            self._drop(self._end, self._bytes.size)
            self._end = 0
        self._drop(self._end, self._end + size)
        return self._bytes[self._end : self._end + size].reshape(shape)

    def keep(self, key: Hashable, tile: NDArray[np.uint8]) -> None:
        """Remember the tile that `reserve` returned last, if it is part of the ring."""
        if tile.base is self._bytes.base:
            self._tiles[key] = self._end, tile
            self._end += tile.size

    def _drop(self, start: int, stop: int) -> None:
        """Forget the oldest tiles that overlap ``start .. stop``."""
        while self._tiles:
            key, (corner, tile) = next(iter(self._tiles.items()))
            if corner >= stop or corner + tile.size <= start:
                return
            del self._tiles[key]


def _allocate(size: int) -> NDArray[np.uint8]:
    return np.empty(size + _MISALIGNMENT, np.uint8)[_MISALIGNMENT:]


scratch = Scratch()
