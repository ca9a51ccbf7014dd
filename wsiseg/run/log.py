"""The log of a run: all log messages, of wsiseg and of libraries, in one file."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from traceback import format_exception
from typing import TextIO

from wsiseg.lock import explained

__all__ = ["SLIDE", "RunLog", "open_log"]

SLIDE: ContextVar[str] = ContextVar("slide", default="")
"""The slide that this thread works on; empty in threads that do blocks of any slide."""


class RunLog(logging.Handler):
    """Writes records to a file, each text once per slide.

    With a damaged file, a reader logs the same line for every block.
    """

    def __init__(self, file: TextIO) -> None:
        super().__init__(logging.INFO)
        self._file = file
        self._written: set[tuple[str, str, str]] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, unless the same text was written for this slide."""
        try:
            text = record.getMessage()
            key = (SLIDE.get(), record.name, text)
            if key in self._written:
                return
            self._written.add(key)
            if record.exc_info and record.exc_info[1]:
                text += "\n" + "".join(format_exception(record.exc_info[1])).rstrip()
            self._write(record.levelname, record.name, text)
        except OSError:  # a full disk: the outputs will raise; a log must not end the run
            logging.getLogger().removeHandler(self)
        except Exception:  # noqa: BLE001  # as every handler does
            self.handleError(record)

    def note(self, text: str, level: str = "INFO", error: BaseException | None = None) -> None:
        """Write a line to this file only, with the traceback of `error`."""
        number = logging.getLevelNamesMapping()[level]
        record = logging.LogRecord("wsiseg.run", number, __file__, 0, text, None, None)
        if error is not None:
            record.exc_info = (type(error), error, error.__traceback__)
        self.handle(record)

    def _write(self, level: str, name: str, text: str) -> None:
        slide = f" [{SLIDE.get()}]" if SLIDE.get() else ""
        lines = text.replace("\n", "\n    ")
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        self._file.write(f"{now} {level} {name}{slide}: {lines}\n")
        self._file.flush()


@contextmanager
def open_log(path: Path) -> Iterator[RunLog]:
    """Write all log messages to the file `path` while the context is open.

    Messages of wsiseg below warnings are included only if its logger lets them through, as the
    command line sets it: ``logging.getLogger("wsiseg").setLevel(logging.INFO)``.

    Raises
    ------
    StoreError
        If the file cannot be written.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w", encoding="utf-8", errors="backslashreplace")
    log = RunLog(file)
    logging.getLogger().addHandler(log)
    try:
        yield log
    except BaseException as error:
        log.note("the run was ended by this", "ERROR", error)
        raise
    finally:
        logging.getLogger().removeHandler(log)
        with suppress(OSError):
            file.close()
