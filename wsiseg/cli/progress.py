"""Progress: updating lines on a terminal, or a plain line now and then without one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

__all__ = ["NARROW", "Board", "Line", "clock_time", "show_board"]

NARROW = 76
"""Below this many columns, lines have a percentage instead of a bar."""
_EVERY_S = 30.0
"""Interval of plain lines."""


class Line:
    """The line of a slide or a command, with its steps."""

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self.name, self.step, self._clock = name, "", clock
        self._counts: dict[str, tuple[int, int]] = {}
        self._first: dict[str, tuple[float, int]] = {}

    def update(self, step: str, done: int, total: int) -> None:
        """Set how many blocks of a step are done."""
        if step not in self._first:
            self._first[step] = (self._clock(), done)
        if self.step in ("", step) or done > self._counts.get(step, (0, 0))[0]:
            self.step = step
        self._counts[step] = (done, total)

    @property
    def share(self) -> float:
        """The finished share of all known steps, in [0, 1]."""
        total = sum(total for _, total in self._counts.values())
        return sum(done for done, _ in self._counts.values()) / total if total else 0.0

    @property
    def rate(self) -> float:
        """Blocks of the current step per second; 0 if not known yet."""
        return self._speed(self.step)

    @property
    def seconds_left(self) -> float | None:
        """Seconds left at the overall rate, as steps run side by side; None if not known yet."""
        left = sum(total - done for done, total in self._counts.values())
        started = min((start for start, _ in self._first.values()), default=0.0)
        done = sum(self._counts[step][0] - first for step, (_, first) in self._first.items())
        elapsed = self._clock() - started
        return left * elapsed / done if done and elapsed > 0 else None

    def _speed(self, step: str) -> float:
        started, first = self._first.get(step, (0.0, 0))
        elapsed = self._clock() - started
        if step not in self._first or elapsed <= 0:
            return 0.0
        return (self._counts[step][0] - first) / elapsed

    def text(self, width: int, names: int) -> str:
        """Format the line for a terminal of `width` columns, `names` of them for the name."""
        done, total = self._counts.get(self.step, (0, 0))
        step = self.step.rpartition("-")[2]  # a pyramid without its step, to save space
        percent = f"{self.share:4.0%}"
        rate = f"{self.rate:.1f}/s" if self.rate else ""
        left = clock_time(self.seconds_left)
        name = f"{_cut(self.name, names):<{names}} " if names else ""
        if width < NARROW:
            return f"{name}{step:<7} {percent} {left}".rstrip()
        full = round(20 * self.share)
        counted = f"{done}/{total}" if total else ""
        return (
            f"{name}{'━' * full}{'╌' * (20 - full)} {percent}  {step:<7} {counted:>9} "
            f"{rate:>8}  {left}"
        ).rstrip()

    def plain(self) -> str:
        """Format the line for a log."""
        done, total = self._counts.get(self.step, (0, 0))
        parts = [f"{self.step} {done}/{total}", f"{self.share:.0%}"] if total else [self.step]
        parts += [f"{self.rate:.2g}/s"] if self.rate else []
        parts += [f"{left} left"] if (left := clock_time(self.seconds_left)) else []
        return " ".join(filter(None, [self.name, ", ".join(parts)]))


class Board:
    """The lines of running work, and one for the whole."""

    def __init__(
        self,
        size: Callable[[], tuple[int, int]] = lambda: (80, 24),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.size, self.clock = size, clock
        """`size` returns columns and rows; it is called for each drawing, as windows change."""
        self.lines: dict[str, Line] = {}
        self.whole: Callable[[int], str] = lambda width: ""
        """Formats the last line for a number of columns."""
        self.lock = threading.RLock()
        """Held while lines change, and while another thread draws them."""
        self._told = clock()
        self.tell: Callable[[str], None] | None = None
        """Receives a plain line now and then."""

    def update(self, name: str, step: str, done: int, total: int) -> None:
        """Set how many blocks of a step of `name` are done."""
        with self.lock:
            line = self.lines.setdefault(name, Line(name, self.clock))
            line.update(step, done, total)
        self.pulse()

    def drop(self, name: str) -> None:
        """Remove the line of `name`."""
        with self.lock:
            self.lines.pop(name, None)

    def report(self, step: str, done: int, total: int) -> None:
        """Report the progress of a command: one line per step until it is finished."""
        if done >= total:
            self.drop(step)
        else:
            self.update(step, step, done, total)

    def texts(self, width: int, height: int) -> list[str]:
        """Format the lines for a terminal."""
        with self.lock:
            shown, limit = list(self.lines.values()), max(1, height - 3)
            # The line of a single step has the step as its name.
            names = [len(line.name) for line in shown if line.name != line.step]
            wide = min(max(names, default=0), max(8, width - (23 if width < NARROW else 64)))
            texts = [line.text(width, wide if names else 0) for line in shown[:limit]]
            texts += [f"and {len(shown) - limit} more"] if len(shown) > limit else []
            texts += [whole] if (whole := self.whole(width)) else []
        return [_cut(text, width) for text in texts]

    def pulse(self) -> None:
        """Print the plain line if it is due."""
        with self.lock:
            if self.tell is None or self.clock() - self._told < _EVERY_S:
                return
            self._told = self.clock()
            shown = [line.plain() for line in self.lines.values()]
            more = [f"and {len(shown) - 3} more"] if len(shown) > 3 else []
            self.tell("; ".join(filter(None, [self.whole(200), *shown[:3], *more])))

    def __rich__(self) -> Group:
        """Return what rich draws."""
        width, height = self.size()
        return Group(*(Text(text, no_wrap=True) for text in self.texts(width, height)))


@contextmanager
def show_board(console: Console, *, quiet: bool = False) -> Iterator[Board]:
    """Show a board on a terminal, a plain line now and then elsewhere, or nothing if `quiet`."""
    board = Board(lambda: (console.width, console.height))
    if quiet:
        yield board
    elif console.is_terminal and not console.is_dumb_terminal and console.file.isatty():
        with Live(
            get_renderable=board.__rich__, console=console, transient=True, refresh_per_second=4
        ):
            yield board
    else:
        board.tell = lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)
        yield board


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: max(0, width - 1)]}…"


def clock_time(seconds: float | None) -> str:
    """Format hours, minutes and seconds; empty for None."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
