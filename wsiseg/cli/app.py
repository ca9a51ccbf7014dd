"""The application that every command registers with."""

from __future__ import annotations

from typing import Annotated

import typer

from wsiseg import __version__
from wsiseg.cli.show import OUT, show_log

__all__ = ["app"]

app = typer.Typer(
    help="Tissue maps of whole slides from patch labels, as polygons for QuPath.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    show_log()
    if version:
        OUT.print(__version__)
        raise typer.Exit
