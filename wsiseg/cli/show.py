"""What commands print: errors, progress, facts and results."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from wsiseg.errors import WsisegError

if TYPE_CHECKING:
    from wsiseg.annotate import SlideResult

__all__ = [
    "OUT",
    "complain",
    "errors",
    "print_facts",
    "print_results",
    "progress_bars",
    "say",
    "show_log",
]

OUT = Console()
ERR = Console(stderr=True)


@contextmanager
def errors() -> Iterator[None]:
    """Show an error of ours as one line, and exit with 1."""
    try:
        yield
    except WsisegError as error:
        complain(f"error: {error}")
        raise typer.Exit(1) from error


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Progress bars with rate and time left on standard error; nothing if it is no terminal."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=ERR, disable=not ERR.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def report(step: str, done: int, total: int) -> None:
            if done >= total:  # a batch has thousands of steps: what is finished leaves the screen
                if step in tasks:
                    bars.remove_task(tasks.pop(step))
                return
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total, rate="")
            speed = bars.tasks[bars.task_ids.index(tasks[step])].speed
            rate = f"{speed:.1f}/s" if speed else ""
            bars.update(tasks[step], completed=done, total=total, rate=rate)

        yield report


def say(text: str) -> None:
    """A line as it is: names may hold brackets, and a path must not be broken."""
    OUT.print(text, markup=False, highlight=False, soft_wrap=True)


def complain(text: str) -> None:
    """An error, as one line on standard error."""
    ERR.print(text, style="red", markup=False, highlight=False, soft_wrap=True)


class _ToStandardError(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        ERR.print(record.getMessage(), markup=False, highlight=False, soft_wrap=True)


def show_log() -> None:
    """Show what the library has to say on the way, as the address of a cluster's dashboard.

    Names of files may hold what the terminal's encoding has no character for; it is escaped.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    log = logging.getLogger("wsiseg")
    log.setLevel(logging.INFO)
    if not any(isinstance(handler, _ToStandardError) for handler in log.handlers):
        log.addHandler(_ToStandardError())


def print_facts(facts: dict[str, Any]) -> None:
    """Names and values, one a line."""
    table = Table(show_header=False, box=None)
    for name, value in facts.items():
        table.add_row(name, escape(str(value)))
    OUT.print(table)


def print_results(results: list[SlideResult]) -> None:
    """One row a slide; failures below, on standard error."""
    table = Table("slide", "status", "mpp", "tiles", "seconds", "tissue mm²")
    for result in results:
        table.add_row(
            escape(result.slide), result.status, f"{result.mpp:g}" if result.mpp else "",
            str(result.tiles), f"{result.seconds:.1f}", f"{result.tissue_mm2:.2f}",
        )  # fmt: skip
    OUT.print(table)
    for result in results:
        if result.note:
            say(f"{result.slide}: {result.note}")
        if result.error:
            complain(f"failed: {result.error}")
