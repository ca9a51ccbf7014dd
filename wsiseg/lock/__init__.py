"""Lock an output so that it has one writer at a time; a crash cannot leave it locked."""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wsiseg.atomic import remove_parts
from wsiseg.errors import StoreError, WsisegError
from wsiseg.lock.bucket import BucketLock
from wsiseg.lock.file import FileLock, Holder

__all__ = ["check_held", "explained", "hold"]

_BEAT_S = 10.0
_STALE_S = 90.0
_RETRY_S = 10.0  # a lock that is being restored is missing for less, however busy the machine
_REMEDY = (
    "finished blocks are kept: free disk space or grant access, then run the same command again"
)


@contextmanager
def hold(path: str | Path, wait_s: float = 0.0, remedy: str = _REMEDY) -> Iterator[str]:
    """Hold the lock on `path` while the block runs.

    The lock is the file ``<path>.lock``, or the object of that name in a bucket. It names its
    holder and is touched every ten seconds. A lock is taken over if its process no longer exists,
    or if it was not touched for 90 s by the file server's clock (the holder's machine died). A run
    whose lock was taken over by mistake (its machine slept) learns so from `check_held`, at the
    latest when the block ends. An `OSError` in the block (a full disk, a lost file server) becomes
    a `StoreError`. If the block succeeds, temporary files that killed writers left below `path`
    before it began are deleted.

    Parameters
    ----------
    path
        The output; it need not exist yet.
    wait_s
        Seconds to wait for another holder to finish.
    remedy
        What is lost and what to do if `path` cannot be written, for the message.

    Yields
    ------
    The run's token, for `check_held` on any machine that works for the run. Empty for
    ``memory://``, which no other process can see.

    Raises
    ------
    StoreError
        If another run holds or took over the lock, or `path` cannot be written.
    MissingDependencyError
        If a URL needs obstore.
    """
    if str(path).startswith("memory://"):
        with explained(path, remedy):
            yield ""
        return
    lock = _open(path)
    with explained(path, remedy):
        token = _acquire(lock, path, time.monotonic() + wait_s)
        stop = threading.Event()
        beat = threading.Thread(target=_beat, args=(lock, token, stop), daemon=True)
        try:
            began = lock.now()
            beat.start()
            yield token
            check_held(path, token)
            if isinstance(lock, FileLock):
                # Only now is the lock known to be still ours. Recent files are kept, as a worker
                # of a dead run may still be writing.
                remove_parts(path, before=min(began, lock.now() - _STALE_S))
        finally:
            stop.set()
            if beat.ident:
                beat.join()
            with suppress(OSError):
                lock.release(token)


def check_held(path: str | Path, token: str) -> None:
    """Check that the run with this token still holds `path`; called by all its workers.

    Raises
    ------
    StoreError
        If another run took over, or the lock was deleted.
    """
    if not token:
        return
    lock, deadline = _open(path), time.monotonic() + _RETRY_S
    while not (holder := lock.read()) and time.monotonic() < deadline:
        time.sleep(0.05)  # a run that took it over by mistake is restoring it
    if holder.get("token") != token:
        by = f"{_describe(holder)} took over" if holder else "its lock was deleted"
        raise StoreError(
            f"{path}: this run no longer holds it: {by} (a run that does not respond for "
            f"{_STALE_S:.0f} s, because its machine sleeps or its disk hangs, is considered "
            f"dead); it stops here, and its finished blocks are kept"
        )


@contextmanager
def explained(path: str | Path, remedy: str = _REMEDY) -> Iterator[None]:
    """Turn an `OSError` other than our own into a `StoreError` that names `path`."""
    try:
        yield
    except WsisegError:
        raise
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        if error.errno == errno.ENAMETOOLONG:
            remedy = "choose a shorter name, or a folder on a file system that allows longer ones"
        raise StoreError(
            f"{path}: cannot be read or written: {error.strerror or error}{where}; {remedy}"
        ) from error


def _open(path: str | Path) -> FileLock | BucketLock:
    if "://" in str(path) and not str(path).startswith("file://"):
        return BucketLock(str(path))
    return FileLock(path)


def _acquire(lock: FileLock | BucketLock, path: str | Path, deadline: float) -> str:
    token = uuid.uuid4().hex
    me: Holder = {
        "token": token,
        "host": _host(),
        "pid": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    while not lock.create(me):
        holder = lock.read()
        if _is_gone(lock, holder):  # or its maker died before writing it
            if lock.take_over(holder, me):
                break
        elif holder and time.monotonic() >= deadline:
            raise StoreError(
                f"{path}: another run writes it ({_describe(holder)}); "
                f"wait until it ends, or choose another output"
            )
        else:
            time.sleep(0.05)
    return token


def _describe(holder: Holder) -> str:
    host = str(holder.get("host")).partition(" ")[0]
    return f"process {holder.get('pid')} on {host}, since {holder.get('since')}"


def _is_gone(lock: FileLock | BucketLock, holder: Holder) -> bool:
    if holder.get("host") == _host() and not _runs(int(holder["pid"])):
        return True
    return lock.silence() > _STALE_S


def _beat(lock: FileLock | BucketLock, token: str, stop: threading.Event) -> None:
    while not stop.wait(_BEAT_S):
        with suppress(OSError):
            if lock.read().get("token", token) != token:
                return  # no longer ours: touching it would keep a dead lock alive forever
            lock.touch(token)


def _host() -> str:
    """Name the machine and its process namespace, as ids are comparable only within one."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _runs(pid: int) -> bool:
    if sys.platform == "win32":
        return True  # os.kill would end the process; only the heartbeat tells
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
