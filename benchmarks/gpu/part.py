"""One part of the measurement: its device, its deadline, and its rows."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch

SIDE = 224
ROUNDS = 5

Row = dict[str, Any]


class Part:
    """A part: its device, its deadline, and its rows so far."""

    def __init__(self, device: str, seconds: float) -> None:
        self.device = torch.device(device)
        self.small = device == "cpu"
        self.end = time.monotonic() + seconds
        self.rows: list[Row] = []

    def measure(self, row: Row, work: Callable[[], Row]) -> None:
        """Add a row: the result of `work`, or why there is none."""
        if time.monotonic() > self.end:
            found: Row = {"why": "no time was left"}
        else:
            try:
                found = work()
            except Exception as error:  # noqa: BLE001 # the other rows are worth having
                found = {"why": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        self.rows.append(row | found)
        print(json.dumps(self.rows[-1]), flush=True)

    def wait(self) -> None:
        """Wait until the device has finished."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object], rounds: int = ROUNDS) -> float:
        """Return the median seconds of some rounds, after a warm-up."""
        work()
        times = []
        for _ in range(1 if self.small else rounds):
            self.wait()
            start = time.perf_counter()
            work()
            self.wait()
            times.append(time.perf_counter() - start)
        return median(times)

    @contextmanager
    def memory(self, row: Row, held: int = 1) -> Iterator[None]:
        """Record the device's peak memory in the block, in MB above `held`."""
        if self.device.type != "cuda":
            yield
            return
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield
        row["MB"] = round((torch.cuda.max_memory_allocated() - before) / held / 2**20, 2)


def models(part: Part) -> tuple[str, ...]:
    """List the models, the most important first; a rehearsal skips it."""
    return ("ensemble", "tiny") if part.small else ("vit-b", "ensemble", "tiny")


@contextmanager
def weights() -> Iterator[Path]:
    """Write a folder of random weights in the layouts of CONCH and SegFormer."""
    from training import write_weights

    with tempfile.TemporaryDirectory() as folder:
        write_weights(Path(folder))
        yield Path(folder)
