"""Who hears of a run, one event at a time though slides run side by side."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable

from wsiseg.run.events import Event, StepAdvanced
from wsiseg.run.jobs import Job

__all__ = ["OnEvent", "Progress", "Teller"]

Progress = Callable[[Job, str, int, int], None]
"""Called with (job, step, blocks done, blocks)."""
OnEvent = Callable[[Event], None]


class Teller:
    """Passes on what happens to those who asked."""

    def __init__(self, progress: Progress | None, on_event: OnEvent | None) -> None:
        self._progress, self._on_event = progress, on_event
        self._lock, self._started = threading.Lock(), time.perf_counter()
        self._spent: dict[tuple[str, str], float] = defaultdict(float)

    def seconds(self) -> float:
        """Since the run began."""
        return time.perf_counter() - self._started

    def spent(self, job: Job, step: str, seconds: float) -> None:
        """A worker spent so long on a block."""
        with self._lock:
            self._spent[job.name, step] += seconds

    def blocks(self, job: Job, step: str, done: int, total: int) -> None:
        """So many blocks of a step are done, or slides of the run if `step` is ``slides``."""
        with self._lock:
            if self._on_event and step != "slides":
                spent = self._spent[job.name, step]
                self._on_event(StepAdvanced(job.name, step, done, total, round(spent, 3)))
            if self._progress:
                self._progress(job, step, done, total)

    def event(self, event: Event) -> None:
        """Something else happened."""
        with self._lock:
            if self._on_event:
                self._on_event(event)
