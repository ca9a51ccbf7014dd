"""Map a function over items on threads, in order, with few results in memory."""

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
    """Yield ``function(item)`` of every item, in order; at most two per worker are pending.

    `workers` is the number of threads (by default, of cores); 1 uses the calling thread only. A
    file is written by one process, and threads suffice: reading, drawing and compressing release
    the GIL.
    """
    count = workers or os.cpu_count() or 1
    if count == 1:
        yield from map(function, items)
        return
    pending: deque[Future[_R]] = deque()
    with ThreadPoolExecutor(count) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= 2 * count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
