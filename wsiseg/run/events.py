"""What a run tells while it goes on: for a terminal, for programs that read it, for a log."""

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
    """Stable: programs go by it."""

    def to_dict(self) -> dict[str, object]:
        """The event's name as `event`, and its fields; ready for JSON."""
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
    `stitch-pyramid`) or `outline`; all but the last go on at once."""
    done: int
    """Blocks done."""
    total: int
    """Blocks in all."""
    worker_seconds: float
    """What workers spent on this step of this slide so far; 0 where that is not known."""


@dataclass(frozen=True)
class SlideFinished(Event):
    """A slide ended, one way or another; as its row of `summary.csv` says."""

    name = "slide_finished"
    result: SlideResult

    def to_dict(self) -> dict[str, object]:
        """The result's fields beside the event's name, but for the rows of `measurements.csv`."""
        facts = asdict(self.result)
        del facts["measurements"]
        return {"event": self.name, **facts}


@dataclass(frozen=True)
class RunFinished(Event):
    """Nothing is under way any more."""

    name = "run_finished"
    slides: Mapping[str, int]
    """How many slides ended with each status."""
    seconds: float
    error: str = ""
    """Why the run ended before its slides did."""
