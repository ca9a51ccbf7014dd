"""Waiting in tests for what another thread or process does."""

import time
from collections.abc import Callable


def wait_until(true: Callable[[], object], seconds: float) -> None:
    """Wait until `true` returns something true; fail if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)
