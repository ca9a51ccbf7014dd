import threading
import time

import pytest

from wsiseg.export.ordered import map_ordered


@pytest.mark.parametrize("workers", [1, 2, 5, None])
def test_results_come_in_order_and_few_wait(workers):
    lock, started, taken, most = threading.Lock(), 0, 0, 0

    def work(number):
        nonlocal started, most
        with lock:
            started += 1
            most = max(most, started - taken)
        time.sleep(0.001 * (number % 3))
        return -number

    results = []
    for result in map_ordered(work, iter(range(60)), workers):
        results.append(result)
        taken += 1
    assert results == [-n for n in range(60)]
    if workers:
        assert most <= 2 * workers


def test_a_failure_is_raised_and_the_rest_is_dropped():
    seen = []

    def work(number):
        seen.append(number)
        if number == 3:
            raise ValueError("three")
        return number

    with pytest.raises(ValueError, match="three"):
        list(map_ordered(work, range(1000), 2))
    assert len(seen) < 20
