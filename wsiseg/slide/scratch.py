"""Memory that a thread uses again and again, since fresh pages cost as much as half a decoding."""

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
"""Of decoded tiles: those that a row of squares of a block leaves for the next one fit."""
_ODD = 8
"""Bytes by which memory is off the processor's alignment. libjpeg-turbo writes rows that are
aligned past the cache, straight to memory: decoding takes 13 % longer, averaging 40 %."""


class Scratch(threading.local):
    """One thread's memory, for every slide that it reads."""

    def __init__(self) -> None:
        self.kept = TileRing(_RING_BYTES)
        """Tiles that are likely to be needed again."""
        self._buffers: dict[str, NDArray[np.uint8]] = {}

    def array(self, name: str, shape: Shape) -> NDArray[np.uint8]:
        """The array `name`, its content undefined; it is the last one of that name, reshaped."""
        size = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size:
            buffer = self._buffers[name] = _take(size)
        return buffer[:size].reshape(shape)


class TileRing:
    """Tiles by key in one piece of memory of `size` bytes; the newest overwrite the oldest."""

    def __init__(self, size: int) -> None:
        self._bytes = _take(size)  # pages are taken as they are used
        self._tiles: OrderedDict[Hashable, tuple[int, NDArray[np.uint8]]] = OrderedDict()
        self._end = 0

    def get(self, key: Hashable) -> NDArray[np.uint8] | None:
        """The tile, or ``None``; valid until the next `room`."""
        held = self._tiles.get(key)
        return None if held is None else held[1]

    def room(self, shape: Shape) -> NDArray[np.uint8]:
        """Memory for a tile; once it is filled, `keep` it under its key."""
        size = math.prod(shape)
        if size > self._bytes.size:
            return _take(size).reshape(shape)
        if self._end + size > self._bytes.size:
            self._drop(self._end, self._bytes.size)
            self._end = 0
        self._drop(self._end, self._end + size)
        return self._bytes[self._end : self._end + size].reshape(shape)

    def keep(self, key: Hashable, tile: NDArray[np.uint8]) -> None:
        """Remember what `room` gave last, if it is of the ring."""
        if tile.base is self._bytes.base:
            self._tiles[key] = self._end, tile
            self._end += tile.size

    def _drop(self, start: int, stop: int) -> None:
        """Forget the oldest tiles as far as they lie within."""
        while self._tiles:
            key, (corner, tile) = next(iter(self._tiles.items()))
            if corner >= stop or corner + tile.size <= start:
                return
            del self._tiles[key]


def _take(size: int) -> NDArray[np.uint8]:
    return np.empty(size + _ODD, np.uint8)[_ODD:]


scratch = Scratch()
