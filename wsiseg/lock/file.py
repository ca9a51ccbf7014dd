"""A lock that is a file beside what it guards."""

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
"""What a lock says of its holder: token, host, pid, since."""


class FileLock:
    """The file ``<path>.lock``; all ages are by the clock of the file system that it lies on."""

    def __init__(self, path: str | Path) -> None:
        place = str(path)
        if place.startswith("file://"):
            from urllib.request import url2pathname  # loads an HTTP client

            place = url2pathname(urlsplit(place).path)
        self.path = Path(f"{place}.lock")

    def create(self, holder: Holder) -> bool:
        """Make the lock, whole, unless it is there."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Windows may refuse to make a file that another process is just deleting.
        with suppress(FileExistsError, *([PermissionError] if sys.platform == "win32" else [])):
            with self.path.open("x", encoding="utf-8") as file:
                file.write(json.dumps(holder))
            return True
        return False

    def read(self) -> Holder:
        """What the lock says; nothing if it is gone or not yet written."""
        return _read(self.path)

    def silence(self) -> float:
        """Seconds since it was touched; 0 if it is gone."""
        try:
            touched = self.path.stat().st_mtime
        except FileNotFoundError:
            return 0.0  # just released: try again
        return self.now() - touched

    def now(self) -> float:
        """The time by the file system's clock: that of a file made just now."""
        probe = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
        try:
            probe.touch()
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def touch(self, token: str) -> None:
        """Be heard."""
        os.utime(self.path)

    def take_over(self, holder: Holder, me: Holder) -> bool:
        """Take the lock of a holder who is gone, unless somebody else has just done so."""
        aside = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}")
        with suppress(FileNotFoundError):
            os.replace(self.path, aside)
            if _read(aside).get("token") != holder.get("token"):
                with suppress(FileExistsError):  # not the one that we judged: give it back
                    os.link(aside, self.path)
            aside.unlink()
        return False  # whoever makes it first has it

    def release(self, token: str) -> None:
        """Free it, if it is still ours."""
        if self.read().get("token") == token:
            self.path.unlink(missing_ok=True)


def _read(path: Path) -> Holder:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
