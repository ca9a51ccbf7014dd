"""Fix the number of threads that torch computes with, for results that repeat bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["fixed_threads"]


@contextmanager
def fixed_threads(count: int) -> Iterator[None]:
    """Compute with `count` intra-op threads in the calling thread; restored afterwards.

    How many threads share a sum decides its rounding, so a result that must not depend on the
    machine or the executor is computed under a fixed count.
    """
    # Asking first matters: a thread takes over the process-wide count on its first use of torch,
    # and another block may just have restored that one. The count itself is kept per thread.
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
