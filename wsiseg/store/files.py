"""The files of a store, in a folder or in a bucket behind a URL.

Files appear complete or not at all: in a folder by renaming, in a bucket by a single put.
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

__all__ = [
    "Bucket",
    "Files",
    "Folder",
    "OpenFile",
    "Part",
    "Reused",
    "describe_damage",
    "is_url",
    "open_files",
]

_REQUESTS = 16  # parallel requests: a bucket has high latency, but serves many at once
_SYNCS = 8  # parallel calls of fsync

Part = NDArray[np.uint8]
"""Bytes of a file, ``(n,)``."""

_T = TypeVar("_T")
_R = TypeVar("_R")


class OpenFile(Protocol):
    """One file of a store, opened to read parts of it."""

    def end(self, length: int) -> bytes | None:
        """Return the last `length` bytes, fewer if the file is shorter; None if it is missing."""

    def parts(self, ranges: Sequence[tuple[int, int]]) -> Iterable[Part]:
        """Return the bytes of each half-open range.

        Each result is valid until the next one is read in this thread, also from another file.
        """


class Reused(threading.local):
    """One reusable buffer per thread.

    It stays in the CPU cache; touching fresh pages costs more than computing a checksum.
    """

    def __init__(self) -> None:
        self._buffer = np.empty(0, np.uint8)

    def array(self, size: int) -> NDArray[np.uint8]:
        """Return `size` undefined bytes, in the same memory each time."""
        if self._buffer.size < size:
            self._buffer = np.empty(size, np.uint8)
        return self._buffer[:size]


_packed = Reused()


class Files(Protocol):
    """The files below one location, by keys such as ``image/0/zarr.json``."""

    place: str
    """The path or URL, for messages."""

    def read(self, key: str) -> bytes | None:
        """Return a whole file; None if it is missing."""

    def open(self, key: str) -> AbstractContextManager[OpenFile | None]:
        """Return a context manager that yields an `OpenFile`; None if the file is missing."""

    def write(self, key: str, parts: Iterable[bytes]) -> None:
        """Write a file of these parts atomically."""

    def delete(self, key: str) -> None:
        """Delete a file, if it exists."""

    def delete_all(self, prefix: str) -> None:
        """Delete the folder `prefix` with everything in it."""

    def empty(self) -> bool:
        """Whether there are no files here."""

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return the size in bytes of every file below the folder `prefix`, by key."""

    def begin_sync(self, key: str) -> None:
        """Start `sync` of this file without waiting for it."""

    def sync(self, keys: Iterable[str]) -> None:
        """Flush these files to disk, so that they survive a power cut; each must exist."""

    def each(self, function: Callable[[_T], _R], items: Iterable[_T]) -> list[_R]:
        """Apply `function` to every item, in parallel where that helps; results are in order."""


def is_url(location: str | Path) -> bool:
    """Whether a store's location is a URL rather than a path."""
    return isinstance(location, str) and "://" in location


def open_files(location: str | Path) -> Files:
    """Open a path, or a URL: ``file://``, ``s3://``, ``gs://``, ``az://`` or ``memory://``.

    Raises
    ------
    StoreError
        If the URL cannot be used, or was converted to a `Path`, which breaks it.
    MissingDependencyError
        If the URL needs obstore, which is not installed.
    """
    if not is_url(location):
        if re.match(r"[a-z0-9]{2,}:[/\\]", str(location)):
            raise StoreError(
                f"{location}: is a URL that was converted to a Path; pass it as a string"
            )
        return Folder(Path(location))
    url = str(location)
    if url.startswith("file://"):
        from urllib.request import url2pathname  # loads http, which no folder needs

        return Folder(Path(url2pathname(urlsplit(url).path)))
    return _open_bucket(url)


def describe_damage(files: Files, key: str, why: str) -> StoreError:
    """Return the error that names a damaged file of a store, and says what to do."""
    return StoreError(
        f"{files.place}/{key}: is damaged ({why}); run `wsiseg check {files.place}` to find all "
        f"damage, then the command that made it, to redo what was lost"
    )


class Folder:
    """A folder in a file system."""

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
        """See `Files.open`; an open file stays readable when it is replaced."""
        try:
            return _LocalFile(f"{self.place}/{key}")
        except FileNotFoundError:
            return nullcontext()

    def write(self, key: str, parts: Iterable[bytes]) -> None:
        """See `Files.write`."""
        self._syncs.pop(key, None)  # of the previous file of this name
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
        """See `Files.empty`; an empty folder counts as empty, a file does not."""
        return not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir()))

    def sizes(self, prefix: str) -> dict[str, int]:
        """See `Files.sizes`."""
        sizes, folders = {}, [prefix]
        while folders:
            folder = folders.pop()
            with (
                suppress(FileNotFoundError, NotADirectoryError),
                os.scandir(f"{self.path}/{folder}") as entries,
            ):
                for entry in entries:
                    if entry.is_dir():
                        folders.append(f"{folder}/{entry.name}")
                        continue
                    with suppress(FileNotFoundError):  # renamed meanwhile; the others are there
                        sizes[f"{folder}/{entry.name}"] = entry.stat().st_size
        return sizes

    def begin_sync(self, key: str) -> None:
        """See `Files.begin_sync`."""
        self._syncs[key] = _syncing(os.getpid()).submit(_sync, f"{self.place}/{key}")

    def sync(self, keys: Iterable[str]) -> None:
        """See `Files.sync`; flushes the folders as well, which hold the names."""
        keys = list(keys)
        # In parallel: the journal is then written once for all, in half the time.
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
    """Return the threads that wait for disks; per process, as a fork has none of its parent's."""
    return ThreadPoolExecutor(_SYNCS, "sync")


def _sync(path: str) -> None:
    try:
        opened = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    except PermissionError:  # Windows cannot open folders
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
        """Fill `buffer` from a position on; return the number of bytes read."""
        return os.preadv(file, [buffer], start)

else:  # Windows

    def _read_at(file: int, buffer: bytearray | memoryview, start: int) -> int:
        os.lseek(file, start, os.SEEK_SET)
        data = os.read(file, len(buffer))
        buffer[: len(data)] = data
        return len(data)


class Bucket:
    """A location in an object store, accessed through obstore with its own credentials.

    Every failure of the service raises a `StoreError`.
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
        """See `Files.open`; a missing file is noticed when its end is read."""
        yield _RemoteFile(self, key)

    def end(self, key: str, length: int) -> bytes | None:
        """Return the last `length` bytes of a file; None if it is missing."""
        errors = self._api.exceptions
        with self._translated(), suppress(FileNotFoundError):
            if self._has_suffixes:
                try:
                    options: Any = {"range": {"suffix": length}}
                    return bytes(self._api.get(self._store, key, options=options).bytes())
                except errors.NotSupportedError:  # Azure
                    self._has_suffixes = False
                except errors.GenericError:  # how servers refuse the end of an empty file varies
                    if self._api.head(self._store, key)["size"]:
                        raise
            size = int(self._api.head(self._store, key)["size"])
            start = max(0, size - length)
            whole = self._api.get_range(self._store, key, start=start, end=size) if size else b""
            return bytes(whole)
        return None

    def parts(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[Part]:
        """Return parts of one file; adjacent ones share a request."""
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
            listing = self._api.list_with_delimiter(self._store)
        return not listing["objects"] and not listing["common_prefixes"]

    def sizes(self, prefix: str) -> dict[str, int]:
        """See `Files.sizes`."""
        with self._translated():
            pages = self._api.list(self._store, prefix=prefix)
            return {str(item["path"]): int(item["size"]) for page in pages for item in page}

    def sync(self, keys: Iterable[str]) -> None:
        """See `Files.sync`; a put is durable."""

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
