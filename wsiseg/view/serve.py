"""Start the server, and open the page in the browser."""

from __future__ import annotations

import logging
import shlex
import socket
import threading
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from wsiseg.errors import ConfigError, MissingDependencyError, WsisegError
from wsiseg.view.collection import open_run

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

    from wsiseg.view.library import Library

__all__ = ["serve"]

HOST = "127.0.0.1"
PORT = 8675
_BACKLOG = 1024
_TRIED = 20  # ports to try from the default on, before using any free one


def serve(
    paths: Sequence[str | Path],
    *,
    host: str = HOST,
    port: int | None = None,
    token: str | None = None,
    slides: Path | None = None,
    suggest: Path | None = None,
    earlier: Path | None = None,
    browser: bool = True,
    tell: Callable[[str], None] = print,
) -> None:
    """Serve the viewer of the runs or stores at `paths` until interrupted.

    Parameters
    ----------
    paths
        Output folders of runs, folders of stores, or stores; several can be compared.
    host
        Host to listen on. Anything but the loopback needs a token; if none is given, one is
        generated.
    port
        An error if it is in use; None for a free one.
    token
        Token that the address must contain, not empty; on the loopback, none by default.
    slides
        Folder of slides that were moved.
    suggest
        Folder that `wsiseg suggest` wrote, whose places the page leads through.
    earlier
        Output folder of an earlier run on these slides, whose corrections are shown, too.
    browser
        Whether to open the page.
    tell
        Called with the address of the page.

    Raises
    ------
    StoreError
        If there is nothing to show at a path.
    DataError
        If the suggested places cannot be read, or they or the earlier run are of other slides.
    ConfigError
        If the address cannot be listened on, or the token is empty or not printable.
    MissingDependencyError
        If the extra `view` is not installed.
    """
    try:
        import uvicorn  # noqa: F401  # check that it is installed

        from wsiseg.view.app import build_app
        from wsiseg.view.earlier import open_earlier
        from wsiseg.view.guard import is_loopback, make_token
        from wsiseg.view.library import Library
        from wsiseg.view.places import find_places
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn", "anyio"):
            raise
        raise MissingDependencyError(
            f"the viewer needs {error.name}; install it with: pip install 'wsiseg[view]'"
        ) from error
    if slides is not None and not slides.is_dir():
        raise ConfigError(f"{slides}: is not a folder; give the folder of the slides")
    library = Library([open_run(path) for path in paths], slides)
    places = None if suggest is None else find_places(suggest, library.entries)
    before = None if earlier is None else open_earlier(earlier, library.runs)
    if token is None and not is_loopback(host):
        token = make_token()
    listener = _listen(host, port)
    number = listener.getsockname()[1]
    options = {"--slides": slides, "--suggest": suggest, "--earlier": earlier, "--port": number}
    server = make_server(build_app(library, token, places, _command(paths, host, options), before))
    shown = f"[{host}]" if ":" in host else host
    query = "" if token is None else f"?token={quote(token, safe='')}"
    address = f"http://{shown}:{number}/{query}"
    threading.Thread(target=_warm_up, args=(library,), daemon=True).start()
    tell(address)
    if browser:
        threading.Timer(0.5, webbrowser.open, [address]).start()
    server.run(sockets=[listener])


def _command(paths: Sequence[str | Path], host: str, options: Mapping[str, object]) -> str:
    """Return the command that serves the same on the same port; a token is not repeated."""
    words = ["wsiseg", "view", *map(str, paths)] + ["--host", host] * (host != HOST)
    words += [str(word) for pair in options.items() if pair[1] is not None for word in pair]
    return shlex.join(words)


def make_server(app: ASGIApp) -> uvicorn.Server:
    """Make a server of `app`, not started; beyond 512 concurrent requests it answers 503."""
    import uvicorn

    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, limit_concurrency=512,
        timeout_graceful_shutdown=2, proxy_headers=False, ws="none",
    )  # fmt: skip
    logging.getLogger("uvicorn.error").addFilter(_OnceFilter())
    return uvicorn.Server(config)


class _OnceFilter(logging.Filter):
    """Log every message only once.

    Requests that are cancelled on shutdown are not logged.
    """

    def __init__(self) -> None:
        super().__init__()
        self._logged: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if message in self._logged or "timeout graceful shutdown exceeded" in message:
            return False
        self._logged.add(message)
        return True


def _warm_up(library: Library) -> None:
    """Read the first slide once, as its reader needs seconds for compilation."""
    for _, entries in library.list_entries():
        for entry in entries:
            if entry.store is not None:
                with suppress(WsisegError), library.borrow(entry.id) as shown:
                    for zoom in reversed(range(shown.scene.coarsest + 1)):
                        shown.scene.photo(zoom, 0, 0)
                return


def _listen(host: str, port: int | None) -> socket.socket:
    """Return a listening socket; raises `ConfigError` if that is impossible."""
    wanted = [port] if port is not None else [*range(PORT, PORT + _TRIED), 0]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in wanted:
        # asyncio sets TCP_NODELAY only if the protocol is TCP; otherwise each response waits
        # 40 ms for the browser to acknowledge the header.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, number))
            listener.listen(_BACKLOG)  # now, as two servers could bind the same port
        except (OSError, OverflowError) as error:  # the second: a number that no port has
            listener.close()
            reason = getattr(error, "strerror", None) or str(error)
            continue
        return listener
    raise ConfigError(
        f"cannot listen on {host}, port {wanted[-1]}: {reason}; choose another --port"
    )
