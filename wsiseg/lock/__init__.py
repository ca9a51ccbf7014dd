"""One writer at a time for an output: a lock that a crash cannot leave shut."""

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
_AGAIN_S = 0.2  # a lock that is being given back is away for less


@contextmanager
def hold(path: str | Path, wait_s: float = 0.0) -> Iterator[str]:
    """Be the only one who writes `path` while the block runs.

    The lock is the file ``<path>.lock``, or the object of that name in a bucket. It names its
    holder and is touched every ten seconds; one whose process is gone, or that was not touched for
    90 s of the file server's clock (the holder's machine died), is taken over. Whoever was taken
    over by mistake (its machine slept) learns it from `check_held`, at the latest when the block
    ends. An `OSError` in the block (a full disk, a file server that is gone) becomes a
    `StoreError`. If the block succeeds, what killed writers left half-written below `path` before
    it began is deleted.

    Parameters
    ----------
    path
        What is written; it need not exist.
    wait_s
        Seconds to wait for another holder to end.

    Yields
    ------
    The run's token, for `check_held` on whatever machine its work is done. Empty for ``memory://``,
    which no other process sees.

    Raises
    ------
    StoreError
        If another run holds it or took it over, or `path` cannot be written.
    MissingDependencyError
        If a URL needs obstore.
    """
    if str(path).startswith("memory://"):
        with explained(path):
            yield ""
        return
    lock = _open(path)
    with explained(path):
        token = _acquire(lock, path, time.monotonic() + wait_s)
        began = lock.now()
        stop = threading.Event()
        beat = threading.Thread(target=_beat, args=(lock, token, stop), daemon=True)
        beat.start()
        try:
            yield token
            check_held(path, token)
            if isinstance(lock, FileLock):
                # Only now is it known to be ours. And a worker of a run that is gone may still
                # write.
                remove_parts(path, before=min(began, lock.now() - _STALE_S))
        finally:
            stop.set()
            beat.join()
            with suppress(OSError):
                lock.release(token)


def check_held(path: str | Path, token: str) -> None:
    """See that the run of this token still holds `path`; called wherever its work is done.

    Raises
    ------
    StoreError
        If it does not: another run took over, or the lock was deleted.
    """
    if not token:
        return
    lock = _open(path)
    if lock.read().get("token") != token:
        time.sleep(_AGAIN_S)  # another who judged wrongly gives it back
        holder = lock.read()
        if holder.get("token") != token:
            by = f"{_describe(holder)} took over" if holder else "its lock was deleted"
            raise StoreError(
                f"{path}: this run no longer holds it: {by} (a run that is not heard of for "
                f"{_STALE_S:.0f} s, as its machine sleeps or its disk hangs, is taken for dead); "
                f"it stops here, and what it finished is kept"
            )


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
        if _is_gone(lock, holder):  # also one that its maker did not live to write
            if lock.take_over(holder, me):
                break
        elif holder and time.monotonic() >= deadline:
            raise StoreError(
                f"{path}: another run writes it ({_describe(holder)}); "
                f"wait for its end, or choose another output"
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
                return  # another's now: to keep it alive would be to shut it for good
            lock.touch(token)


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
