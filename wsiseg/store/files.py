"""Where a store's bytes lie: in a folder, or in a bucket behind a URL.

Whole files appear or do not: a folder's are renamed into place, a bucket's are put in one request.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from wsiseg.atomic import open_atomic
from wsiseg.bucket import open_service
from wsiseg.errors import StoreError

__all__ = ["Bucket", "Files", "Folder", "OpenFile", "Part", "Reused", "is_url", "open_files"]

_REQUESTS = 16  # at a time: a bucket answers late, but many at once

_SYNCS = 8

Part = NDArray[np.uint8]
"""Bytes of a file, ``(n,)``."""

_T = TypeVar("_T")
_R = TypeVar("_R")


class OpenFile(Protocol):
    """One file of a store, of which parts are read."""

    def end(self, length: int) -> bytes | None:
        """The last `length` bytes, fewer if there are no more; None if there is no file."""

    def parts(self, ranges: Sequence[tuple[int, int]]) -> Iterable[Part]:
        """The bytes of each range, from its first position to before its second.

        Each is valid until the next one, or another file's in this thread.
        """


class Reused(threading.local):
    """One buffer a thread.

    It stays in the processor's cache, and fresh pages cost more than a checksum does.
    """

    def __init__(self) -> None:
        self._buffer = np.empty(0, np.uint8)

    def array(self, size: int) -> NDArray[np.uint8]:
        """`size` bytes, their content undefined; the same memory as the last time."""
        if self._buffer.size < size:
            self._buffer = np.empty(size, np.uint8)
        return self._buffer[:size]


_packed = Reused()


class Files(Protocol):
    """The files below one place, by keys such as ``image/0/zarr.json``."""

    place: str
    """The path or URL, for messages."""

    def read(self, key: str) -> bytes | None:
        """A whole file, or None if there is none."""

    def open(self, key: str) -> AbstractContextManager[OpenFile | None]:
        """A context that gives an `OpenFile`, or None if there is none."""

    def write(self, key: str, parts: Iterable[bytes]) -> None:
        """Put a file of these parts in place, whole or not at all."""

    def delete(self, key: str) -> None:
        """Take a file away, if it is there."""

    def delete_all(self, prefix: str) -> None:
        """Take away what lies in the folder `prefix`, and that."""

    def empty(self) -> bool:
        """Whether nothing lies here."""

    def sizes(self, prefix: str) -> dict[str, int]:
        """Size in bytes of every file below the folder `prefix`, by key."""

    def begin_sync(self, key: str) -> None:
        """Begin with what `sync` does for this file, without waiting for it."""

    def sync(self, keys: Iterable[str]) -> None:
        """Have these files on the disk, where a power cut leaves them; each must be there."""

    def each(self, function: Callable[[_T], _R], items: Iterable[_T]) -> list[_R]:
        """The results of `function` on every item, in order, as many at once as pays here."""


def is_url(location: str | Path) -> bool:
    """Whether a store's location is a URL, not a path."""
    return isinstance(location, str) and "://" in location


def open_files(location: str | Path) -> Files:
    """The files at a path, or at a URL: ``file://``, ``s3://``, ``gs://``, ``az://``, ``memory://``.

    Raises
    ------
    StoreError
        If the URL cannot be used, or was made a `Path`, which breaks it.
    MissingDependencyError
        If it needs obstore, which is not installed.
    """
    if not is_url(location):
        if re.match(r"[a-z0-9]{2,}:[/\\]", str(location)):
            raise StoreError(f"{location}: is a URL that was made a Path; pass it as text")
        return Folder(Path(location))
    url = str(location)
    if url.startswith("file://"):
        from urllib.request import url2pathname  # loads http, which no folder needs

        return Folder(Path(url2pathname(urlsplit(url).path)))
    return _open_bucket(url)


class Folder:
    """A folder of a file system."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = str(path)
        self._syncs: dict[str, Future[None]] = {}

    def read(self, key: str) -> bytes | None:
        """See `Files.read`."""
        try:
            return self.path.joinpath(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def open(self, key: str) -> AbstractContextManager[OpenFile | None]:
        """See `Files.open`; a file that is replaced meanwhile is read to its end as it was."""
        try:
            return _LocalFile(f"{self.place}/{key}")
        except FileNotFoundError:
            return nullcontext()

    def write(self, key: str, parts: Iterable[bytes]) -> None:
        """See `Files.write`."""
        self._syncs.pop(key, None)  # of another file of that name
        with open_atomic(self.path / key) as file:
            file.writelines(parts)

    def delete(self, key: str) -> None:
        """See `Files.delete`."""
        self.path.joinpath(key).unlink(missing_ok=True)

    def delete_all(self, prefix: str) -> None:
        """See `Files.delete_all`."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.path / prefix)

    def empty(self) -> bool:
        """See `Files.empty`; an empty folder is nothing, a file is not."""
        return not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir()))

    def sizes(self, prefix: str) -> dict[str, int]:
        """See `Files.sizes`."""
        found, folders = {}, [prefix]
        while folders:
            folder = folders.pop()
            with (
                suppress(FileNotFoundError, NotADirectoryError),
                os.scandir(f"{self.path}/{folder}") as entries,
            ):
                for entry in entries:
                    if entry.is_dir():
                        folders.append(f"{folder}/{entry.name}")
                    else:
                        found[f"{folder}/{entry.name}"] = entry.stat().st_size
        return found

    def begin_sync(self, key: str) -> None:
        """See `Files.begin_sync`."""
        self._syncs[key] = _syncing(os.getpid()).submit(_sync, f"{self.place}/{key}")

    def sync(self, keys: Iterable[str]) -> None:
        """See `Files.sync`; their names too, which are the folders' content."""
        keys = list(keys)
        # At once: a journal is then written once for all of them, in half the time.
        for key in keys:
            if key not in self._syncs:
                self.begin_sync(key)
        for key in keys:
            self._syncs.pop(key).result()
        folders = sorted({os.path.dirname(f"{self.place}/{key}") for key in keys})
        list(_syncing(os.getpid()).map(_sync, folders))

    def each(self, function: Callable[[_T], _R], items: Iterable[_T]) -> list[_R]:
        """See `Files.each`."""
        return [function(item) for item in items]


@cache
def _syncing(_process: int) -> ThreadPoolExecutor:
    """What waits for disks; one a process, as a fork's child has none of its parent's threads."""
    return ThreadPoolExecutor(_SYNCS, "sync")


def _sync(path: str) -> None:
    try:
        opened = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    except PermissionError:  # Windows opens no folder
        return
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


class _LocalFile:
    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))

    def __enter__(self) -> _LocalFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def end(self, length: int) -> bytes:
        size = os.fstat(self._file).st_size
        buffer = bytearray(min(length, size))
        return bytes(buffer[: _read_at(self._file, buffer, size - len(buffer))])

    def parts(self, ranges: Sequence[tuple[int, int]]) -> Iterator[Part]:
        for start, stop in ranges:
            buffer = _packed.array(stop - start)
            yield buffer[: _read_at(self._file, buffer.data, start)]


if hasattr(os, "preadv"):

    def _read_at(file: int, buffer: bytearray | memoryview, start: int) -> int:
        """Fill `buffer` from a position on; the number of bytes that there were."""
        return os.preadv(file, [buffer], start)

else:  # Windows

    def _read_at(file: int, buffer: bytearray | memoryview, start: int) -> int:
        os.lseek(file, start, os.SEEK_SET)
        data = os.read(file, len(buffer))
        buffer[: len(data)] = data
        return len(data)


class Bucket:
    """A place in an object store, through obstore; credentials as it finds them.

    Raises `StoreError` for every failure of the service.
    """

    def __init__(self, url: str) -> None:
        self.place, self._has_suffixes = url, True
        self._service = open_service(url)
        self._api, self._store = self._service

    def read(self, key: str) -> bytes | None:
        """See `Files.read`."""
        with self._translated():
            try:
                return bytes(self._api.get(self._store, key).bytes())
            except FileNotFoundError:
                return None

    @contextmanager
    def open(self, key: str) -> Iterator[OpenFile | None]:
        """See `Files.open`; looks for the file when its end is read."""
        yield _RemoteFile(self, key)

    def end(self, key: str, length: int) -> bytes | None:
        """The last `length` bytes of a file, None if there is none."""
        errors = self._api.exceptions
        with self._translated(), suppress(FileNotFoundError):
            if self._has_suffixes:
                try:
                    options: Any = {"range": {"suffix": length}}
                    return bytes(self._api.get(self._store, key, options=options).bytes())
                except errors.NotSupportedError:  # Azure
                    self._has_suffixes = False
                except errors.GenericError:  # servers refuse the end of nothing, each in its way
                    if self._api.head(self._store, key)["size"]:
                        raise
            size = int(self._api.head(self._store, key)["size"])
            start = max(0, size - length)
            whole = self._api.get_range(self._store, key, start=start, end=size) if size else b""
            return bytes(whole)
        return None

    def parts(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[Part]:
        """Parts of one file, neighbours in one request."""
        starts, ends = [start for start, _ in ranges], [end for _, end in ranges]
        with self._translated():
            return [
                np.frombuffer(part, np.uint8)
                for part in self._api.get_ranges(self._store, key, starts=starts, ends=ends)
            ]

    def write(self, key: str, parts: Iterable[bytes]) -> None:
        """See `Files.write`."""
        with self._translated():
            self._api.put(self._store, key, b"".join(parts))

    def delete(self, key: str) -> None:
        """See `Files.delete`."""
        with self._translated(), suppress(FileNotFoundError):
            self._api.delete(self._store, key)

    def delete_all(self, prefix: str) -> None:
        """See `Files.delete_all`."""
        self.each(self.delete, self.sizes(f"{prefix}/"))

    def empty(self) -> bool:
        """See `Files.empty`."""
        with self._translated():
            found = self._api.list_with_delimiter(self._store)
        return not found["objects"] and not found["common_prefixes"]

    def sizes(self, prefix: str) -> dict[str, int]:
        """See `Files.sizes`."""
        with self._translated():
            pages = self._api.list(self._store, prefix=prefix)
            return {str(item["path"]): int(item["size"]) for page in pages for item in page}

    def sync(self, keys: Iterable[str]) -> None:
        """See `Files.sync`; what was put is kept."""

    def begin_sync(self, key: str) -> None:
        """See `Files.begin_sync`."""

    def each(self, function: Callable[[_T], _R], items: Iterable[_T]) -> list[_R]:
        """See `Files.each`."""
        with ThreadPoolExecutor(_REQUESTS) as pool:
            return list(pool.map(function, items))

    def _translated(self) -> AbstractContextManager[None]:
        return self._service.translated(self.place)


class _RemoteFile:
    def __init__(self, bucket: Bucket, key: str) -> None:
        self.bucket, self.key = bucket, key

    def end(self, length: int) -> bytes | None:
        return self.bucket.end(self.key, length)

    def parts(self, ranges: Sequence[tuple[int, int]]) -> list[Part]:
        return self.bucket.parts(self.key, ranges)


@cache
def _open_bucket(url: str) -> Bucket:
    return Bucket(url)
