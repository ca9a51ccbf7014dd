"""A lock that is a file beside the output that it protects."""

from __future__ import annotations

import json
import os
import sys
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

__all__ = ["FileLock", "Holder"]

Holder = dict[str, Any]
"""The holder of a lock: token, host, pid, since."""


class FileLock:
    """The file ``<path>.lock``; ages are measured by the clock of its file system."""

    def __init__(self, path: str | Path) -> None:
        place = str(path)
        if place.startswith("file://"):
            from urllib.request import url2pathname  # loads an HTTP client

            place = url2pathname(urlsplit(place).path)
        self.path = Path(f"{place}.lock")

    def create(self, holder: Holder) -> bool:
        """Create the lock unless it exists; return whether it was created."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Windows may refuse to create a file while another process is deleting it.
        with suppress(FileExistsError, *([PermissionError] if sys.platform == "win32" else [])):
            file = self.path.open("x", encoding="utf-8")
            try:
                with file:
                    file.write(json.dumps(holder))
            except OSError:  # the disk is full: an empty lock would be waited for
                self.path.unlink(missing_ok=True)
                raise
            return True
        return False

    def read(self) -> Holder:
        """Return the holder; empty if there is no lock, or it is not yet written."""
        return _read(self.path)

    def silence(self) -> float:
        """Return the seconds since the lock was touched; 0 if there is no lock."""
        try:
            touched = self.path.stat().st_mtime
        except FileNotFoundError:
            return 0.0  # just released: try again
        return self.now() - touched

    def now(self) -> float:
        """Return the time by the file system's clock, read from a new file."""
        probe = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
        try:
            probe.touch()
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def touch(self, token: str) -> None:
        """Renew the lock."""
        os.utime(self.path)

    def take_over(self, holder: Holder, me: Holder) -> bool:
        """Remove a dead holder's lock, unless it has changed; `create` then competes for it."""
        aside = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}")
        with suppress(FileNotFoundError):
            os.replace(self.path, aside)
            if _read(aside).get("token") != holder.get("token"):
                with suppress(FileExistsError):  # not the lock that was judged: restore it
                    os.link(aside, self.path)
            aside.unlink()
        return False  # the first to create it holds it

    def release(self, token: str) -> None:
        """Delete the lock, if it is still ours."""
        if self.read().get("token") == token:
            self.path.unlink(missing_ok=True)


def _read(path: Path) -> Holder:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
