"""What is logged and warned of in other processes, heard in this one as what threads say is."""

from __future__ import annotations

import json
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import AuthenticationError, current_process
from multiprocessing.connection import Client, Connection, Listener
from typing import Any, NamedTuple

from wsiseg.log_warnings import log_warning

__all__ = ["Levels", "Said", "hear", "listening", "send_to", "tell"]

_BACKLOG = 64  # processes that connect at once
_WAIT_S = 30.0  # for what was said last


class Said(NamedTuple):
    """A message, of plain values only."""

    logger: str
    level: int
    text: str


class Levels(NamedTuple):
    """From which level on the root's and our own loggers are heard."""

    root: int
    ours: int

    @classmethod
    def here(cls) -> Levels:
        """Those of this process."""
        return cls(logging.getLogger().level, logging.getLogger("wsiseg").level)


class _Teller(logging.Handler):
    def __init__(self, send: Callable[[Said], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        with suppress(OSError):  # whoever listened is gone: the work tells, or nobody waits for it
            self._send(Said(record.name, record.levelno, text))


def tell(send: Callable[[Said], None], levels: Levels) -> None:
    """Have all that is logged and warned of in this process sent."""
    logging.getLogger().addHandler(_Teller(send))
    logging.getLogger().setLevel(levels.root)
    logging.getLogger("wsiseg").setLevel(levels.ours)
    warnings.showwarning = log_warning  # type: ignore[assignment]  # its file is never used


def hear(said: Said) -> None:
    """Log here what was said elsewhere."""
    logger = logging.getLogger(said.logger)
    if logger.isEnabledFor(said.level):
        logger.handle(logger.makeRecord(said.logger, said.level, "", 0, said.text, (), None))


@contextmanager
def listening() -> Iterator[Any]:
    """Hear the processes that call `send_to` with what the block is given, until they have ended.

    Each has a connection of its own: of a queue that they share, one that is killed may keep the
    lock.
    """
    closing = threading.Event()
    with Listener(backlog=_BACKLOG, authkey=current_process().authkey) as listener:
        thread = threading.Thread(target=_accept, args=(listener, closing), daemon=True)
        thread.start()
        try:
            yield listener.address
        finally:
            closing.set()
            with suppress(OSError):
                Client(listener.address).close()  # no key: nobody may be left to ask for it
            thread.join(_WAIT_S)


def send_to(address: Any, levels: Levels) -> None:
    """In a process that was started by this one: send what is said to its `listening`."""
    # Else, or where the listener ends just now, it is said on standard error, as it would be.
    with suppress(OSError, EOFError):
        connection = _connect(address)
        tell(lambda said: connection.send_bytes(json.dumps(said).encode()), levels)


def _connect(address: Any) -> Connection[Any, Any]:
    return Client(address, authkey=current_process().authkey)


def _accept(listener: Listener, closing: threading.Event) -> None:
    """Read every connection to its end, until one more comes when it is time to close."""
    readers = []
    while not closing.is_set():
        try:
            connection = listener.accept()
        except (OSError, EOFError, AuthenticationError):  # gone already, or none of ours
            continue
        reader = threading.Thread(target=_read, args=(connection,), daemon=True)
        reader.start()
        readers.append(reader)
    for reader in readers:
        reader.join(_WAIT_S)


def _read(connection: Connection[Any, Any]) -> None:
    with connection, suppress(EOFError, OSError):
        while True:
            hear(Said(*json.loads(connection.recv_bytes())))
