"""Printing for commands: errors, progress, facts and results."""

from __future__ import annotations

import shlex
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from wsiseg.cli.consoles import stderr, stdout
from wsiseg.cli.messages import MESSAGES, write
from wsiseg.errors import WsisegError

if TYPE_CHECKING:
    from wsiseg.run import SlideResult

__all__ = [
    "complain",
    "errors",
    "interrupts",
    "print_facts",
    "print_plan",
    "print_results",
    "print_table",
    "progress_bars",
    "say",
    "say_next",
]

_NARROW = 60
_PACKAGE = Path(__file__).parents[1]

# typer may bring its own click, so the class of usage errors is taken from typer.
_USAGE: type[Exception] = next(
    kind
    for kind in typer.BadParameter.__mro__
    if issubclass(kind, Exception) and kind.__name__ == "ClickException"
)
_PASSED = (_USAGE, typer.Exit, typer.Abort, BrokenPipeError)
"""Exceptions that the command line handles itself."""


@contextmanager
def errors() -> Iterator[None]:
    """Show an error as one paragraph and exit with 1; with ``--debug``, also its traceback."""
    try:
        yield
    except _PASSED:
        raise
    except Exception as error:
        if MESSAGES.debug:
            write(traceback.format_exc().rstrip())
        complain(f"error: {_explain(error)}")
        raise typer.Exit(1) from error


def _explain(error: Exception) -> str:
    """Return what happened, where, and what to do; our own errors already say so."""
    if isinstance(error, WsisegError):
        return str(error)
    if isinstance(error, OSError) and error.errno and error.filename:
        return (
            f"{error.filename}: cannot be read or written: {error.strerror}; free disk space, "
            f"grant access or choose another path, then run the same command again"
        )
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(_PACKAGE)]
    last = (ours or frames)[-1]
    where = "/".join(Path(last.filename).parts[-2:])
    more = "" if MESSAGES.debug else "; `wsiseg --debug ...` shows the traceback"
    log = f", as does {MESSAGES.log}" if MESSAGES.log and not MESSAGES.debug else ""
    return (
        f"{type(error).__name__}: {error} ({where}, line {last.lineno}). This is an unexpected "
        f"error, probably a bug in wsiseg; please report it{more}{log}"
    )


@contextmanager
def progress_bars(*, resumes: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Show the progress of each step, with rate and time left, on standard error.

    `resumes` is that of `interrupts`.
    """
    from wsiseg.cli.progress import show_board

    with interrupts(resumes=resumes), show_board(stderr(), quiet=MESSAGES.quiet) as board:
        yield board.report


@contextmanager
def interrupts(*, resumes: bool) -> Iterator[None]:
    """Say at Ctrl-C or SIGTERM that it was interrupted, and whether it `resumes` when run again."""
    try:
        yield
    except KeyboardInterrupt:
        kept = ": what was finished is kept, and the same command continues from there"
        write(f"interrupted{kept if resumes else ''}", "yellow")
        raise


def say(text: str) -> None:
    """Print a line without markup, as names may have brackets, and without line breaks."""
    stdout().print(text, markup=False, highlight=False, soft_wrap=True)


def say_next(purpose: str, *command: object) -> None:
    """Print a command that would usually come next, ready to be pasted; not if asked for quiet."""
    if not MESSAGES.quiet:
        say(f"{purpose}: wsiseg {shlex.join(map(str, command))}")


def complain(text: str) -> None:
    """Print an error as one line on standard error."""
    write(text, "red")


def print_facts(facts: dict[str, Any]) -> None:
    """Print names and values, one per line."""
    print_table((), facts.items(), show_header=False, box=None)


def print_plan(facts: Mapping[str, int | str], held_out: str = "") -> None:
    """Print what a training would do, starting with what it would hold out."""
    held = {"held out": held_out} if held_out else {}
    print_facts(held | {n: f"{v:,}" if isinstance(v, int) else v for n, v in facts.items()})


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], **options: Any) -> None:
    """Print a table of cells without markup, none cut; `options` are those of rich's `Table`."""
    from rich.markup import escape
    from rich.table import Column, Table

    table = Table(*(Column(name, overflow="fold") for name in columns), **options)
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    stdout().print(table)


def print_results(results: list[SlideResult]) -> None:
    """Print a row per slide and notes not shown yet; failures go to standard error."""
    if not MESSAGES.quiet:
        _print_results(results)
    for result in results:
        if result.note and not MESSAGES.quiet:
            notes = [part for part in result.note.split("; ") if not MESSAGES.was_said(part)]
            if notes:
                say(f"{result.slide}: {'; '.join(notes)}")
        if result.error:
            complain(f"failed: {result.error}")


def _print_results(results: list[SlideResult]) -> None:
    console = stdout()
    if console.width < _NARROW and console.is_terminal:  # too narrow for a table
        for result in results:
            say(f"{result.slide}: {result.status}, {result.tissue_mm2:.2f} mm²")
        return
    columns = ("slide", "status", "mpp", "tiles", "seconds", "tissue mm²")
    print_table(columns, map(_result_row, results))


def _result_row(result: SlideResult) -> tuple[object, ...]:
    mpp = f"{result.mpp:g}" if result.mpp else ""
    seconds, area = f"{result.seconds:.1f}", f"{result.tissue_mm2:.2f}"
    return result.slide, result.status, mpp, result.tiles, seconds, area
