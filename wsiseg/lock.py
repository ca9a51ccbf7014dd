"""One writer at a time for an output: a lock file that a crash cannot leave shut."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from wsiseg.atomic import remove_parts
from wsiseg.errors import StoreError, WsisegError

__all__ = ["explained", "hold"]

_BEAT_S = 10.0
_STALE_S = 90.0  # clocks of a cluster's machines differ by less


@contextmanager
def hold(path: str | Path, wait_s: float = 0.0) -> Iterator[None]:
    """Be the only one who writes `path` while the block runs.

    The lock is the file ``<path>.lock``. It names its holder and is touched every ten seconds; one
    whose process is gone, or that was not touched for 90 s (the holder's machine died), is taken
    over. It is advice, not safety: blocks are written whole, so that even two writers of the same
    settings would write the same bytes. An `OSError` in the block (a full disk, a file server that
    is gone) becomes a `StoreError`. If the block succeeds, what killed writers left half-written
    below `path` before it began is deleted.

    Parameters
    ----------
    path
        What is written; it need not exist.
    wait_s
        Seconds to wait for another holder to end.

    Raises
    ------
    StoreError
        If another run holds it, or `path` cannot be written.
    """
    if "://" in str(path):  # an object store: it replaces objects whole, and cannot lock
        with explained(path):
            yield
        return
    lock = Path(f"{path}.lock")
    with explained(path):
        lock.parent.mkdir(parents=True, exist_ok=True)
        token = _acquire(lock, path, time.monotonic() + wait_s)
        began = time.time()
        stop = threading.Event()
        beat = threading.Thread(target=_beat, args=(lock, stop), daemon=True)
        beat.start()
        try:
            yield
            # Only now is it known to be ours. And a worker of a run that is gone may still write.
            remove_parts(path, before=min(began, time.time() - _STALE_S))
        finally:
            stop.set()
            beat.join()
            if _read(lock).get("token") == token:
                lock.unlink(missing_ok=True)


@contextmanager
def explained(path: str | Path) -> Iterator[None]:
    """Turn an `OSError` that is not ours into a `StoreError` that names `path`."""
    try:
        yield
    except WsisegError:
        raise
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        remedy = (
            "finished blocks are kept: make room or give access, and run the same command again"
        )
        if error.errno == errno.ENAMETOOLONG:
            remedy = "choose a shorter name, or a folder whose file system takes longer ones"
        raise StoreError(
            f"{path}: cannot be read or written: {error.strerror or error}{where}; {remedy}"
        ) from error


def _acquire(lock: Path, path: str | Path, deadline: float) -> str:
    token = uuid.uuid4().hex
    me = {
        "token": token,
        "host": _host(),
        "pid": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    while not _create(lock, json.dumps(me)):
        holder = _read(lock)
        if _is_gone(lock, holder):
            _take_away(lock, holder)
        elif holder and time.monotonic() >= deadline:
            raise StoreError(
                f"{path}: another run writes it (process {holder.get('pid')} on "
                f"{str(holder.get('host')).partition(' ')[0]}, since {holder.get('since')}); "
                f"wait for its end, or choose another output"
            )
        else:
            time.sleep(0.05)
    return token


def _create(lock: Path, text: str) -> bool:
    """Make the lock, whole, unless it is there."""
    # Windows may refuse to make a file that another process is just deleting.
    with suppress(FileExistsError, *([PermissionError] if sys.platform == "win32" else [])):
        with lock.open("x", encoding="utf-8") as file:
            file.write(text)
        return True
    return False


def _read(lock: Path) -> dict[str, Any]:
    """What the lock says; nothing if it is gone or not yet written."""
    try:
        return dict(json.loads(lock.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _is_gone(lock: Path, holder: dict[str, Any]) -> bool:
    try:
        silent = time.time() - lock.stat().st_mtime
    except FileNotFoundError:
        return False  # just released: try again
    if silent > _STALE_S:
        return True
    return holder.get("host") == _host() and not _runs(int(holder["pid"]))


def _take_away(lock: Path, holder: dict[str, Any]) -> None:
    """Remove the lock of a holder who is gone, unless somebody else has just done so."""
    aside = lock.with_name(f"{lock.name}.{uuid.uuid4().hex}")
    with suppress(FileNotFoundError):
        os.replace(lock, aside)
        if _read(aside).get("token") != holder.get("token"):
            with suppress(FileExistsError):  # not the one that we judged: give it back
                os.link(aside, lock)
        aside.unlink()


def _beat(lock: Path, stop: threading.Event) -> None:
    while not stop.wait(_BEAT_S):
        with suppress(OSError):
            os.utime(lock)


def _host() -> str:
    """The machine and, in containers, the process ids that are comparable."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _runs(pid: int) -> bool:
    if sys.platform == "win32":
        return True  # asking would end the process; there the beat alone tells
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
