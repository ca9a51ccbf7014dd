"""Pass the events of a run on, one at a time, although slides run side by side."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable

from wsiseg.run.events import Event, StepAdvanced
from wsiseg.run.jobs import Job

__all__ = ["Notifier", "OnEvent", "Progress"]

Progress = Callable[[Job, str, int, int], None]
"""Called with (job, step, blocks done, blocks)."""
OnEvent = Callable[[Event], None]


class Notifier:
    """Calls `progress` and `on_event`, whichever were given, under one lock."""

    def __init__(self, progress: Progress | None, on_event: OnEvent | None) -> None:
        self._progress, self._on_event = progress, on_event
        self._lock, self._started = threading.Lock(), time.perf_counter()
        self._worker_seconds: dict[tuple[str, str], float] = defaultdict(float)

    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self._started

    def add_worker_time(self, job: Job, step: str, seconds: float) -> None:
        """Add the seconds that a worker spent on a block."""
        with self._lock:
            self._worker_seconds[job.name, step] += seconds

    def count(self, job: Job, step: str, done: int, total: int) -> None:
        """Report how many blocks of a step are done, or slides of the run for step ``slides``."""
        with self._lock:
            if self._on_event and step != "slides":
                seconds = self._worker_seconds[job.name, step]
                self._on_event(StepAdvanced(job.name, step, done, total, round(seconds, 3)))
            if self._progress:
                self._progress(job, step, done, total)

    def send(self, event: Event) -> None:
        """Pass on any other event."""
        with self._lock:
            if self._on_event:
                self._on_event(event)
