"""The server, started: where it listens, and the page opened in the browser."""

from __future__ import annotations

import logging
import socket
import threading
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from wsiseg.errors import ConfigError, MissingDependencyError, WsisegError
from wsiseg.view.collection import open_run

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

    from wsiseg.view.library import Library

__all__ = ["serve"]

PORT = 8675
_BACKLOG = 1024
_TRIED = 20  # ports after the usual one, before any free one is taken


def serve(
    paths: Sequence[str | Path],
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    token: str | None = None,
    slides: Path | None = None,
    browser: bool = True,
    tell: Callable[[str], None] = print,
) -> None:
    """Serve the viewer of what lies at `paths` until it is interrupted.

    Parameters
    ----------
    paths
        Output folders of runs, folders of stores, or stores; two or more are shown side by side.
    host
        Where to listen. Anything but this machine's loopback needs a token; one is made if none is
        given.
    port
        Refused if it is taken; if None, one that is free.
    token
        What the address must bear; on the loopback there is none unless it is given.
    slides
        Folder in which slides lie that are no longer where they were.
    browser
        Whether the page is opened.
    tell
        Called with the address of the page.

    Raises
    ------
    StoreError
        If there is nothing to show at a path.
    ConfigError
        If the address cannot be listened on.
    MissingDependencyError
        If the extra `view` is not installed.
    """
    try:
        import uvicorn  # noqa: F401  # told apart here, used below

        from wsiseg.view.app import build_app
        from wsiseg.view.guard import is_loopback, make_token
        from wsiseg.view.library import Library
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn", "anyio"):
            raise
        raise MissingDependencyError(
            f"the viewer needs {error.name}; install it with: pip install 'wsiseg[view]'"
        ) from error
    if slides is not None and not slides.is_dir():
        raise ConfigError(f"{slides}: is no folder of slides")
    library = Library([open_run(path) for path in paths], slides)
    if token is None and not is_loopback(host):
        token = make_token()
    listener = _listen(host, port)
    number = listener.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{number}/" + (f"?token={token}" if token else "")
    server = make_server(build_app(library, token))
    threading.Thread(target=_warm_up, args=(library,), daemon=True).start()
    tell(address)
    if browser:
        threading.Timer(0.5, webbrowser.open, [address]).start()
    server.run(sockets=[listener])


def make_server(app: ASGIApp) -> uvicorn.Server:
    """A server of `app`, not started; beyond 512 requests at once it says 503."""
    import uvicorn

    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, limit_concurrency=512,
        timeout_graceful_shutdown=2, proxy_headers=False, ws="none",
    )  # fmt: skip
    logging.getLogger("uvicorn.error").addFilter(_News())
    return uvicorn.Server(config)


class _News(logging.Filter):
    """What whoever runs the viewer wants to know: each message once, however many ask at once.

    Requests that closing leaves unanswered are not told.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if message in self._told or "timeout graceful shutdown exceeded" in message:
            return False
        self._told.add(message)
        return True


def _warm_up(library: Library) -> None:
    """Look at the first slide once: what its reader compiles takes seconds the first time."""
    for _, entries in library.list_entries():
        for entry in entries:
            if entry.store is not None:
                with suppress(WsisegError), library.borrow(entry.id) as shown:
                    for zoom in reversed(range(shown.scene.coarsest + 1)):
                        shown.scene.photo(zoom, 0, 0)
                return


def _listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens; raises `ConfigError` if it may not."""
    wanted = [port] if port is not None else [*range(PORT, PORT + _TRIED), 0]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in wanted:
        # asyncio sends at once only on what says that it is TCP; else each answer waits 40 ms for
        # the browser to acknowledge its head.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, number))
            listener.listen(_BACKLOG)  # now, or two servers could have bound the same port
        except OSError as error:
            listener.close()
            reason = error.strerror or str(error)
            continue
        return listener
    raise ConfigError(
        f"cannot listen on {host}, port {wanted[-1]}: {reason}; choose another --port"
    )
