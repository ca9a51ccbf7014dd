"""The command that opens the viewer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsiseg.cli.app import LOOK, app
from wsiseg.cli.show import say

__all__ = ["view"]


@app.command(rich_help_panel=LOOK, epilog="Example: wsiseg view out")
def view(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Output folders, .zarr stores or folders of them; two: side by side."),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; all except the loopback need a token.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(help="Port; a free one if not given.", min=0, max=65535)
    ] = None,
    token: Annotated[
        str | None, typer.Option(help="Secret in the page's address; generated if needed.")
    ] = None,
    slides: Annotated[
        Path | None, typer.Option(help="Folder of the slides, if they were moved.")
    ] = None,
    suggest: Annotated[
        Path | None,
        typer.Option(help="Folder that `wsiseg suggest` wrote: go through its places."),
    ] = None,
    earlier: Annotated[
        Path | None,
        typer.Option(help="Output folder of an earlier map: show its corrections over this one."),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
) -> None:
    """View maps over their slides in the browser, and correct them."""
    from wsiseg.view.serve import serve

    def tell(address: str) -> None:
        say(f"{address}\nPress Ctrl-C to stop.")

    serve(
        paths, host=host, port=port, token=token, slides=slides, suggest=suggest, earlier=earlier,
        browser=browser, tell=tell,
    )  # fmt: skip
