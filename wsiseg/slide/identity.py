"""Identify a slide by its content, without reading all of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from wsiseg.errors import SlideOpenError
from wsiseg.slide.dicom import series_files
from wsiseg.slide.files import SharedFile, slide_file

__all__ = ["identify_slide", "slide_files", "was_identified_as"]

_ENDS = 64 * 1024
_SAMPLES = 64
"""Number of samples at fixed fractions of a slide's bytes, divided among its files."""
_MIN_SAMPLES = 4  # per file
_SAMPLE = 4096  # bytes
_TABLES = frozenset({273, 279, 324, 325, 330})
"""TIFF tags: offsets and byte counts of strips and tiles, and SubIFDs."""
_SUBIFDS = 330
_TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 13: 4, 16: 8, 17: 8, 18: 8}  # bytes per TIFF type
_MAX_IFDS, _MAX_BYTES = 4096, 2**27


def identify_slide(path: Path) -> str:
    """Return a hex sha256 of the content of a slide's files, from a few parts of each.

    For every file: its size, both ends and samples at fixed fractions; for a TIFF also the offsets
    and byte counts of all tiles, which differ wherever compressed pixels do. File names do not
    count. Cheap even over a network, and cached until a time stamp or a size changes.

    Raises
    ------
    SlideOpenError
        If a file cannot be read.
    """
    files = slide_files(path)
    try:
        return _identify(files, tuple(_stamp(file) for file in files))
    except OSError as error:
        raise SlideOpenError(f"{path}: cannot be read ({error.strerror or error})") from error


def was_identified_as(path: Path, identity: str) -> bool:
    """Whether `identity` is the slide's in stores made before samples were part of it."""
    file = SharedFile(slide_file(path))
    try:
        size, ends = file.size, min(_ENDS, file.size)
        head, tail = file.read_at(0, ends), file.read_at(size - ends, ends)
        return hashlib.sha256(str(size).encode() + b":" + head + tail).hexdigest() == identity
    except OSError:
        return False
    finally:
        file.close()


def slide_files(path: Path) -> tuple[Path, ...]:
    """Return the files of a slide: one in most formats, else also its companions, sorted.

    Raises
    ------
    SlideOpenError
        If `path` is not a slide.
    """
    main = slide_file(path)
    suffix = main.suffix.lower()
    if suffix == ".mrxs":
        return main, *sorted(file for file in main.with_suffix("").glob("*") if file.is_file())
    if suffix in (".vms", ".vmu"):
        return main, *_named_files(main)
    return series_files(main) or (main,)


def _named_files(index: Path) -> list[Path]:
    """Return the files that a Hamamatsu index names and that lie beside it."""
    lines = index.read_bytes().decode("latin-1").splitlines()
    names = {line.partition("=")[2].strip() for line in lines}
    return sorted(file for name in names if name and (file := index.parent / name).is_file())


def _stamp(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@lru_cache(64)
def _identify(files: tuple[Path, ...], stamps: tuple[tuple[int, ...], ...]) -> str:
    """Identify files; `stamps` only invalidate the cache when the files change."""
    samples = max(_MIN_SAMPLES, _SAMPLES // len(files))
    digests = sorted(_digest(file, samples, _ENDS // len(files)) for file in files)
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _digest(path: Path, samples: int, ends: int) -> bytes:
    file = SharedFile(path)
    try:
        size = file.size
        digest = hashlib.sha256(str(size).encode() + b":")
        parts = [(0, ends), (size - ends, ends)]
        parts += [(size * i // samples, _SAMPLE) for i in range(1, samples)]
        for offset, count in parts:
            offset = max(0, offset)
            digest.update(file.read_at(offset, min(count, size - offset)))
        for table in _tiff_tables(file):
            digest.update(table)
        return digest.digest()
    finally:
        file.close()


def _tiff_tables(file: SharedFile) -> Iterator[bytes]:
    """Yield the raw directories of a TIFF and its tables of offsets and byte counts.

    Yields nothing for other files; a damaged file is followed as far as possible.
    """
    head = file.read_at(0, min(16, file.size))
    order = {b"II": "little", b"MM": "big"}.get(head[:2])
    if order is None or len(head) < 16:
        return
    number = _Numbers(file, order)
    version = number.decode(head[2:4])
    if version not in (42, 43):
        return
    big = version == 43
    queue = [number.decode(head[8:16] if big else head[4:8])]
    seen: set[int] = set()
    count = 0
    while queue and len(seen) < _MAX_IFDS and count < _MAX_BYTES:
        offset = queue.pop()
        if offset in seen or not 0 < offset < file.size:
            continue
        seen.add(offset)
        for table, further in _read_ifd(number, offset, big):
            queue += further
            count += len(table)
            yield table


class _Numbers:
    """Reads a file's numbers in its byte order; returns no bytes beyond its end."""

    def __init__(self, file: SharedFile, order: str) -> None:
        self._file, self._little = file, order == "little"

    def decode(self, data: bytes) -> int:
        return int.from_bytes(data, "little" if self._little else "big")

    def read(self, offset: int, count: int) -> bytes:
        if offset >= self._file.size:
            return b""
        return self._file.read_at(offset, min(count, self._file.size - offset, _MAX_BYTES))


def _read_ifd(number: _Numbers, offset: int, big: bool) -> Iterator[tuple[bytes, list[int]]]:
    """Yield the directory at `offset` and its tables, each with offsets of further directories."""
    head, entry, word = (8, 20, 8) if big else (2, 12, 4)
    count = number.decode(number.read(offset, head))
    body = number.read(offset + head, min(count, 4096) * entry + word)
    following = body[count * entry :]
    yield body, [number.decode(following)] if len(following) == word else []
    for start in range(0, len(body) - entry + 1, entry):
        tag, kind = (number.decode(body[start + i : start + i + 2]) for i in (0, 2))
        if tag not in _TABLES:
            continue
        values = number.decode(body[start + 4 : start + 4 + word])
        width = _TYPES.get(kind, 1)
        field = body[start + 4 + word : start + entry]
        if values * width > word:
            field = number.read(number.decode(field), values * width)
        subifds = min(values, _MAX_IFDS) if tag == _SUBIFDS else 0
        offsets = range(0, min(len(field), subifds * width), width)
        yield field, [number.decode(field[i : i + width]) for i in offsets]
