"""What commands print: errors, progress, facts and results."""

from __future__ import annotations

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
    "print_facts",
    "print_plan",
    "print_results",
    "print_table",
    "progress_bars",
    "say",
]

_NARROW = 60
_PACKAGE = Path(__file__).parents[1]

# typer brings its own click or uses the one that is installed: what errors of usage are, it says.
_USAGE: type[Exception] = next(
    kind
    for kind in typer.BadParameter.__mro__
    if issubclass(kind, Exception) and kind.__name__ == "ClickException"
)
_PASSED = (_USAGE, typer.Exit, typer.Abort, BrokenPipeError)
"""What the command line itself deals with."""


@contextmanager
def errors() -> Iterator[None]:
    """Show an error as one paragraph, and exit with 1; with ``--debug``, its traceback too."""
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
    """What, where and why; and what to do, which errors of ours say themselves."""
    if isinstance(error, WsisegError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    last = ([one for one in frames if Path(one.filename).is_relative_to(_PACKAGE)] or frames)[-1]
    where = "/".join(Path(last.filename).parts[-2:])
    more = "" if MESSAGES.debug else "; `wsiseg --debug ...` shows how it came about"
    log = f", as does {MESSAGES.log}" if MESSAGES.log and not MESSAGES.debug else ""
    return (
        f"{type(error).__name__}: {error} ({where}, line {last.lineno}). Nobody expected that: it "
        f"is a fault of wsiseg, and a report of it is welcome{more}{log}"
    )


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """How far each step is, with rate and time left, on standard error."""
    from wsiseg.cli.progress import show_board

    with show_board(stderr(), quiet=MESSAGES.quiet) as board:
        yield board.report


def say(text: str) -> None:
    """A line as it is: names may hold brackets, and a path must not be broken."""
    stdout().print(text, markup=False, highlight=False, soft_wrap=True)


def complain(text: str) -> None:
    """An error, as one line on standard error."""
    write(text, "red")


def print_facts(facts: dict[str, Any]) -> None:
    """Names and values, one a line."""
    print_table((), facts.items(), show_header=False, box=None)


def print_plan(facts: Mapping[str, int | str], held_out: str = "") -> None:
    """What a training would do, counts with separators; first, what it would hold out."""
    held = {"held out": held_out} if held_out else {}
    print_facts(held | {n: f"{v:,}" if isinstance(v, int) else v for n, v in facts.items()})


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], **looks: Any) -> None:
    """A table of cells as they are, nothing in them being markup; `looks` as of rich's `Table`."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(*columns, **looks)
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    stdout().print(table)


def print_results(results: list[SlideResult]) -> None:
    """One row a slide, and what has not been said yet of it; failures on standard error."""
    if not MESSAGES.quiet:
        _print_results(results)
    for result in results:
        if result.note and not MESSAGES.quiet:
            told = [part for part in result.note.split("; ") if not MESSAGES.was_said(part)]
            if told:
                say(f"{result.slide}: {'; '.join(told)}")
        if result.error:
            complain(f"failed: {result.error}")


def _print_results(results: list[SlideResult]) -> None:
    console = stdout()
    if console.width < _NARROW and console.is_terminal:  # a table would be cut to nothing
        for result in results:
            say(f"{result.slide}: {result.status}, {result.tissue_mm2:.2f} mm²")
        return
    columns = ("slide", "status", "mpp", "tiles", "seconds", "tissue mm²")
    print_table(columns, map(_result_row, results))


def _result_row(result: SlideResult) -> tuple[object, ...]:
    mpp = f"{result.mpp:g}" if result.mpp else ""
    seconds, area = f"{result.seconds:.1f}", f"{result.tissue_mm2:.2f}"
    return result.slide, result.status, mpp, result.tiles, seconds, area
