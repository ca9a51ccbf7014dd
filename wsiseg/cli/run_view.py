"""The output of `wsiseg annotate` during a run: lines on a terminal, or JSON for programs.

With ``--json``, standard output has one JSON object per line and nothing else. Each has `event` and
the fields of the class of that name in `wsiseg.run.events`:

- ``run_started``: `run`, `slides` (count), `log` (path)
- ``slide_started``: `slide`, `path`
- ``step``: `slide`, `step` (tile, tile-pyramid, predict, stitch, stitch-pyramid, outline), `done`,
  `total` (blocks), `worker_seconds`
- ``slide_finished``: `slide`, `path`, `status`, `tiles`, `seconds`, `tissue_mm2`, `class_mm2`,
  `note`, `error`, `outdated` (paths) and the other columns of ``summary.csv``
- ``warning``: `text`
- ``run_finished``: `slides` (count by status), `seconds`, `error` (why the run ended early; empty
  if it did not). Always the last, except after wrong usage.

Names and fields may be added, but do not change.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from wsiseg.cli.consoles import stderr
from wsiseg.cli.messages import MESSAGES
from wsiseg.cli.progress import NARROW, Board, clock_time, show_board
from wsiseg.cli.show import interrupts
from wsiseg.run.events import (
    Event,
    RunFinished,
    RunStarted,
    SlideFinished,
    SlideStarted,
    StepAdvanced,
)

__all__ = ["RunView", "show_run"]

_BOUND_BY = {"tile": "reading", "predict": "model", "stitch": "CRF"}
_BOUND_BY |= {"tile-pyramid": "writing levels", "stitch-pyramid": "writing levels"}
_MIN_WORK_S = 1.0
"""Seconds of work before the main activity is shown."""
_MIN_SHARE = 0.05
"""Finished slides before the remaining time is shown."""


@contextmanager
def show_run(*, as_json: bool, resumes: bool) -> Iterator[Callable[[Event], None]]:
    """Show the events of a run; yields the function that receives them.

    `resumes` is that of `interrupts`.
    """
    with interrupts(resumes=resumes):
        if as_json:
            with _json_lines() as take:
                yield take
        else:
            with show_board(stderr(), quiet=MESSAGES.quiet) as board:
                yield RunView(board).take


@contextmanager
def _json_lines() -> Iterator[Callable[[Event], None]]:
    finished, started = False, time.perf_counter()

    def take(event: Event) -> None:
        nonlocal finished
        finished = finished or isinstance(event, RunFinished)
        _keep_log(event)
        _write(event.to_dict())

    MESSAGES.on_warning = lambda text: _write({"event": "warning", "text": text})
    try:
        yield take
    except BaseException as error:
        if not finished:
            reason = str(error) or type(error).__name__
            take(RunFinished({}, time.perf_counter() - started, reason))
        raise
    finally:
        MESSAGES.on_warning = None


def _write(facts: dict[str, object]) -> None:
    sys.stdout.write(f"{json.dumps(facts)}\n")
    sys.stdout.flush()


def _keep_log(event: Event) -> None:
    if isinstance(event, RunStarted):
        MESSAGES.log = event.log


class RunView:
    """Keeps a board up to date with a run."""

    def __init__(self, board: Board) -> None:
        self._board, self._slides = board, 0
        self._ended: Counter[str] = Counter()
        self._spent: dict[tuple[str, str], float] = {}
        self._started = board.clock()
        board.whole = self.describe

    def take(self, event: Event) -> None:
        """Show an event."""
        _keep_log(event)
        with self._board.lock:
            self._take(event)

    def _take(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self._slides = event.slides
        elif isinstance(event, SlideStarted):
            self._board.update(event.slide, "open", 0, 0)
        elif isinstance(event, StepAdvanced):
            self._spent[event.slide, event.step] = event.worker_seconds
            self._board.update(event.slide, event.step, event.done, event.total)
        elif isinstance(event, SlideFinished):
            self._ended[event.result.status] += 1
            self._board.drop(event.result.slide)
            self._board.pulse()

    def describe(self, width: int) -> str:
        """Format the line for the whole run."""
        if not self._slides:
            return ""
        ended, failed = self._ended.total(), self._ended["failed"]
        parts = [f"{ended}/{self._slides} slides"]
        parts += [f"{failed} failed"] if failed else []
        if (bound := self._bound()) and width >= NARROW:
            parts.append(bound)
        parts.append(f"{clock_time(self._board.clock() - self._started)} elapsed")
        if (left := self._seconds_left()) is not None and self._slides > 1:
            parts.append(f"{clock_time(left)} left")
        return ", ".join(parts)

    def _bound(self) -> str:
        """Return what the workers mostly do."""
        spent: Counter[str] = Counter()
        for (_, step), seconds in self._spent.items():
            spent[_BOUND_BY.get(step, step)] += seconds  # type: ignore[assignment]  # a Counter of floats
        if spent.total() < _MIN_WORK_S:
            return ""
        ((activity, longest),) = spent.most_common(1)
        return f"mostly {activity} ({longest / spent.total():.0%})"

    def _seconds_left(self) -> float | None:
        """Estimate the time left as if all slides, except failed ones, took equally long."""
        slides, ended = self._slides - self._ended["failed"], self._ended.total()
        running = sum(line.share for line in self._board.lines.values())
        share = ended - self._ended["failed"] + running
        elapsed = self._board.clock() - self._started
        return elapsed * (slides - share) / share if share > _MIN_SHARE else None
