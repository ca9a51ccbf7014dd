"""Messages during a command: ours go to standard error, once each; libraries' to the log."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from wsiseg.cli.consoles import stderr
from wsiseg.log_warnings import log_warning

__all__ = ["MESSAGES", "listen", "write"]

_QUIETER = {"HF_HUB_VERBOSITY": "error", "TRANSFORMERS_VERBOSITY": "error"}
"""These libraries print messages without logging, unless told not to."""


class Messages(logging.Handler):
    """Shows wsiseg's log records and warnings, each text once, and counts those of libraries.

    The reader of a damaged file repeats its message at every attempt; our own message says what it
    means for the slide. With `debug`, everything is shown, with tracebacks.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self, *, debug: bool = False, quiet: bool = False) -> None:
        """Forget earlier messages."""
        self.debug, self.quiet = debug, quiet
        self.log = ""
        """Path of the run's log; empty if there is none."""
        self.on_warning: Callable[[str], None] | None = None
        """Receives warnings instead of standard error."""
        self._shown: set[str] = set()
        self._kept: dict[str, set[str]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record, or count it."""
        text, library = record.getMessage(), record.name.partition(".")[0]
        if library != "wsiseg":
            self._kept.setdefault(library, set()).add(text)
            if not self.debug:
                return
            text = f"{record.name}: {text}"
        if text in self._shown:
            return
        self._shown.add(text)
        if self.debug and record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        self._show(text, record.levelno >= logging.WARNING)

    def _show(self, text: str, warns: bool) -> None:
        if warns and self.on_warning is not None:
            self.on_warning(text)
        elif warns:
            write(f"warning: {text}", "yellow")
        elif not self.quiet and self.on_warning is None:
            write(text)

    def was_said(self, text: str) -> bool:
        """Whether a message that was shown contains `text`."""
        return any(text in shown for shown in self._shown)

    def describe_kept(self) -> str:
        """Summarise libraries' messages in a line; empty if there are none, or they were shown."""
        if self.debug or not self._kept:
            return ""
        counts = ", ".join(f"{name} ({len(texts)})" for name, texts in sorted(self._kept.items()))
        where = f"in {self.log}" if self.log else "shown by `wsiseg --debug ...`"
        return f"Messages of {counts} are {where}"


MESSAGES = Messages()


def write(text: str, style: str = "") -> None:
    """Print a line on standard error, without markup."""
    stderr().print(text, style=style, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def listen(*, debug: bool, quiet: bool) -> Iterator[None]:
    """Handle log records and warnings in the block; at the end, mention hidden messages."""
    MESSAGES.reset(debug=debug, quiet=quiet)
    for name, value in _QUIETER.items():
        os.environ.setdefault(name, value)
    root, ours = logging.getLogger(), logging.getLogger("wsiseg")
    level = ours.level
    ours.setLevel(logging.DEBUG if debug else logging.INFO)
    root.addHandler(MESSAGES)
    with warnings.catch_warnings():
        warnings.showwarning = log_warning  # type: ignore[assignment]  # its file is never used
        try:
            yield
        finally:
            root.removeHandler(MESSAGES)
            ours.setLevel(level)
            if (kept := MESSAGES.describe_kept()) and not MESSAGES.quiet:
                write(kept)
