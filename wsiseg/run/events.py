"""Events of a run, for whoever follows it: a terminal, a program, a log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar

from wsiseg.run.slide import SlideResult

__all__ = ["Event", "RunFinished", "RunStarted", "SlideFinished", "SlideStarted", "StepAdvanced"]


@dataclass(frozen=True)
class Event:
    """Something that happened in a run."""

    name: ClassVar[str]
    """Stable: programs rely on it."""

    def to_dict(self) -> dict[str, object]:
        """Return the event's name as `event`, and its fields, ready for JSON."""
        return {"event": self.name, **asdict(self)}


@dataclass(frozen=True)
class RunStarted(Event):
    """The slides are known, and the first is about to begin."""

    name = "run_started"
    run: str
    """Names the run's record and log in ``OUT/runs``; empty where nothing is written."""
    slides: int
    log: str
    """Path of the log file; empty where nothing is written."""


@dataclass(frozen=True)
class SlideStarted(Event):
    """A slide is about to be opened."""

    name = "slide_started"
    slide: str
    path: str


@dataclass(frozen=True)
class StepAdvanced(Event):
    """A step of a slide began (with what was done before), or a block of it is done."""

    name = "step"
    slide: str
    step: str
    """`tile`, `predict`, `context`, `stitch`, the levels of two of them (`tile-pyramid`,
    `stitch-pyramid`) or `outline`; all but the last overlap."""
    done: int
    """Number of blocks that are done."""
    total: int
    """Number of blocks."""
    worker_seconds: float
    """Time that workers spent on this step of this slide so far; 0 where it is not known."""


@dataclass(frozen=True)
class SlideFinished(Event):
    """A slide ended, with whatever status; the result is its row of `summary.csv`."""

    name = "slide_finished"
    result: SlideResult

    def to_dict(self) -> dict[str, object]:
        """Return the event's name and the fields of `result`, except `measurements`."""
        facts = asdict(self.result)
        del facts["measurements"]
        return {"event": self.name, **facts}


@dataclass(frozen=True)
class RunFinished(Event):
    """The run ended."""

    name = "run_finished"
    slides: Mapping[str, int]
    """How many slides ended with each status."""
    seconds: float
    error: str = ""
    """Why the run ended before its slides did."""
