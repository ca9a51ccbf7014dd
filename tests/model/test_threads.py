import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from wsiseg.model.threads import fixed_threads


def test_fixed_threads_hold_in_every_thread_and_are_restored():
    """Threads that start and end at other times must not set each other's count."""
    before, barrier = torch.get_num_threads(), threading.Barrier(3, timeout=60)
    fixed = before + 1

    def work(number):
        seen = []
        for _ in range(5):
            barrier.wait()
            with fixed_threads(fixed):
                for _ in range(number + 1):  # leave at different times
                    torch.ones(300, 300) @ torch.ones(300, 300)
                seen.append(torch.get_num_threads())
        return seen

    with ThreadPoolExecutor(3) as pool:
        assert {count for seen in pool.map(work, range(3)) for count in seen} == {fixed}
    assert torch.get_num_threads() == before
    with pytest.raises(KeyError), fixed_threads(fixed):
        raise KeyError
    assert torch.get_num_threads() == before
