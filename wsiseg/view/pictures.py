"""Encode tiles, and cache the most recently used ones."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np
import simplejpeg
from numpy.typing import NDArray

__all__ = ["Cache", "pack_jpeg"]

_QUALITY = 85


def pack_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Encode ``(H, W, 3)`` uint8 RGB as JPEG."""
    packed: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels), _QUALITY, colorspace="RGB", colorsubsampling="420"
    )
    return packed


class Cache:
    """A cache of the most recently used bytes by key, limited in size."""

    def __init__(self, limit: int) -> None:
        self._limit, self._size = limit, 0
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, bytes] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """Return the cached value of `key`, or call `make` and cache its result."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            if key not in self._values:
                self._values[key] = value
                self._size += len(value)
            while self._size > self._limit:
                self._size -= len(self._values.popitem(last=False)[1])
        return value
