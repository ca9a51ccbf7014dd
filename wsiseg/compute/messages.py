"""Log messages and warnings of worker processes, logged in this process as those of threads are."""

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

__all__ = ["LogLevels", "Message", "forward_logs", "listening", "log_message", "send_logs_to"]

_BACKLOG = 64  # processes that connect at once
_WAIT_S = 30.0  # for the last messages of a process


class Message(NamedTuple):
    """A log message, of plain values only, so that it needs no pickle."""

    logger: str
    level: int
    text: str


class LogLevels(NamedTuple):
    """The levels of the root logger and of ours."""

    root: int
    ours: int

    @classmethod
    def current(cls) -> LogLevels:
        """Return those of this process."""
        return cls(logging.getLogger().level, logging.getLogger("wsiseg").level)


class _ForwardHandler(logging.Handler):
    def __init__(self, send: Callable[[Message], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        with suppress(OSError):  # the listener is gone: the call itself fails, or nobody waits
            self._send(Message(record.name, record.levelno, text))


def forward_logs(send: Callable[[Message], None], levels: LogLevels) -> None:
    """Pass every log message and warning of this process to `send`."""
    logging.getLogger().addHandler(_ForwardHandler(send))
    logging.getLogger().setLevel(levels.root)
    logging.getLogger("wsiseg").setLevel(levels.ours)
    warnings.showwarning = log_warning  # type: ignore[assignment]  # its file is never used


def log_message(message: Message) -> None:
    """Log a message of another process in this one."""
    name, level, text = message
    logger = logging.getLogger(name)
    if logger.isEnabledFor(level):
        logger.handle(logger.makeRecord(name, level, "", 0, text, (), None))


@contextmanager
def listening() -> Iterator[Any]:
    """Log the messages of processes that call `send_logs_to` with the address that this yields.

    Each process has a connection of its own: with a shared queue, a killed process might keep the
    queue's lock. On leaving, waits for the processes' last messages.
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
                Client(listener.address).close()  # without the key: nobody may be left to check it
            thread.join(_WAIT_S)


def send_logs_to(address: Any, levels: LogLevels) -> None:
    """In a worker process, send log messages and warnings to the parent's `listening`."""
    # If the listener has just closed, messages go to standard error, as without this.
    with suppress(OSError, EOFError):
        connection = _connect(address)
        forward_logs(lambda message: connection.send_bytes(json.dumps(message).encode()), levels)


def _connect(address: Any) -> Connection[Any, Any]:
    return Client(address, authkey=current_process().authkey)


def _accept(listener: Listener, closing: threading.Event) -> None:
    """Read each connection in a thread, until one comes after `closing` is set."""
    readers = []
    while not closing.is_set():
        try:
            connection = listener.accept()
        except (OSError, EOFError, AuthenticationError):  # closed already, or not one of ours
            continue
        reader = threading.Thread(target=_read, args=(connection,), daemon=True)
        reader.start()
        readers.append(reader)
    for reader in readers:
        reader.join(_WAIT_S)


def _read(connection: Connection[Any, Any]) -> None:
    with connection, suppress(EOFError, OSError):
        while True:
            log_message(Message(*json.loads(connection.recv_bytes())))
