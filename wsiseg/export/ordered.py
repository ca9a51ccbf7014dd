"""Work on threads, handed on in order, with few results waiting."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["map_ordered"]

_T = TypeVar("_T")  # PEP 695 syntax needs Python 3.12
_R = TypeVar("_R")


def map_ordered(
    function: Callable[[_T], _R], items: Iterable[_T], workers: int | None = None
) -> Iterator[_R]:
    """``function(item)`` of every item, in their order; at most two a worker are held.

    `workers` threads, the number of cores if not given; 1 is the calling thread alone. A file is
    written by one process, so threads suffice: reading, drawing and compressing hold no GIL.
    """
    count = workers or os.cpu_count() or 1
    if count == 1:
        yield from map(function, items)
        return
    waiting: deque[Future[_R]] = deque()
    with ThreadPoolExecutor(count) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 2 * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
