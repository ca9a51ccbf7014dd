"""The application with which every command registers.

Exit codes: 0 success, 1 a slide failed or an error ended the command, 2 wrong usage; 130 after
Ctrl-C, 143 after SIGTERM.
"""

from __future__ import annotations

import copy
import io
import os
import sys
from itertools import pairwise
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command_name

from wsiseg.cli.messages import listen
from wsiseg.cli.show import errors, say
from wsiseg.cli.termination import ends_at_sigterm
from wsiseg.version import __version__

__all__ = ["FILES", "LOOK", "LOOP", "MAPS", "MODELS", "app"]

MAPS, MODELS, LOOP = "Maps", "Models", "Labels and the loop"
LOOK, FILES = "Look", "Files and set-up"
"""Panels of ``wsiseg --help``."""

_EPILOG = "Exit codes: 0 success, 1 a slide failed or an error, 2 wrong usage."


class _Commands(TyperGroup):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse an empty ``--out``, which would mean the current folder."""
        if "--out=" in args or {("-o", ""), ("--out", "")} & {*pairwise(args)}:
            raise typer.BadParameter(
                "is empty (a variable of the shell that is not set?); give a path, or . for the "
                "current folder", ctx, param_hint="--out",
            )  # fmt: skip
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; an unexpected error gives one line instead of a traceback."""
        for stream in (sys.stdout, sys.stderr):  # escape names that the terminal cannot show
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        debug = ctx.params["debug"] or os.environ.get("WSISEG_DEBUG", "") not in ("", "0")
        quiet = ctx.params["quiet"]
        with ends_at_sigterm(), listen(debug=debug, quiet=quiet), errors():
            return super().invoke(ctx)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands of each panel in the order of registration."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            row = name, command.get_short_help_str(limit=200)
            panels.setdefault(command.rich_help_panel or "Commands", []).append(row)
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl(rows)


class _App(typer.Typer):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run; where a command is named, only that is built: all of them take 0.05 s."""
        words = [word for word in sys.argv[1:] if word not in ("-q", "--quiet", "--debug")]
        one = [
            info for info in self.registered_commands
            if words[:1] == [info.name or get_command_name(getattr(info.callback, "__name__", ""))]
        ]  # fmt: skip
        if args or "args" in kwargs or not one:
            return super().__call__(*args, **kwargs)
        alone = copy.copy(self)
        alone.registered_commands, alone.registered_groups = one, []
        return typer.Typer.__call__(alone, *args, **kwargs)


app = _App(
    cls=_Commands,
    rich_markup_mode=None,  # plain help takes half the time: rich would be loaded only for frames
    help="Tissue maps of whole slides from patch labels, as polygons for QuPath.",
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print only results, warnings and errors.")
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show tracebacks and all messages; same as WSISEG_DEBUG=1."),
    ] = False,
) -> None:
    if version:
        say(__version__)
        raise typer.Exit
