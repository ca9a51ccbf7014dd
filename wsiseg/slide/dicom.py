"""Find the files of a DICOM series, which together are one slide, by their headers."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

__all__ = ["DicomHeader", "find_series", "read_header", "series_files"]

_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"  # SOP class: VL Whole Slide Microscopy Image
_IMPLICIT = "1.2.840.10008.1.2"
_UNREAD = frozenset({"1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"})  # big endian, deflated
_HEAD = 64 * 1024
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR",
                   b"UT", b"UV"})  # fmt: skip
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_CLASS, _SYNTAX = 0x00020002, 0x00020010
_DESCRIPTION, _SERIES, _CONTAINER = 0x0008103E, 0x0020000E, 0x00400512


class DicomHeader(NamedTuple):
    """The header of a file of a whole-slide series."""

    series: str
    """SeriesInstanceUID, common to all files of a slide."""
    description: str
    """SeriesDescription, else ContainerIdentifier (the glass slide's); may be empty."""


def read_header(path: Path) -> DicomHeader | None:
    """Read the header of a DICOM whole-slide image; None for any other file."""
    try:
        with path.open("rb") as file:
            head = file.read(132)
            if head[128:] != b"DICM":
                return None
            values = _read_values(file.read(_HEAD))
    except OSError:
        return None
    if values.get(_CLASS) != _SLIDE or not values.get(_SERIES):
        return None
    return DicomHeader(values[_SERIES], values.get(_DESCRIPTION) or values.get(_CONTAINER) or "")


def series_files(path: Path) -> tuple[Path, ...]:
    """Return all files of the series that `path` belongs to, sorted; empty if it is not DICOM."""
    header = read_header(path)
    return find_series(path.parent).get(header.series, (path,)) if header else ()


def find_series(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Find the sorted files of each whole-slide series in `folder`, by SeriesInstanceUID."""
    try:
        return _find_series(folder, folder.stat().st_mtime_ns)
    except OSError:  # no permission to list it
        return {}


@lru_cache(256)
def _find_series(folder: Path, stamp: int) -> dict[str, tuple[Path, ...]]:
    """Find the series in a folder; `stamp` only invalidates the cache when the folder changes."""
    series: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if _may_be_dicom(path.name) and path.is_file() and (header := read_header(path)):
            series[header.series].append(path)
    return {key: tuple(paths) for key, paths in series.items()}


def _may_be_dicom(name: str) -> bool:
    # Archives name files by UID, or 0001, without a suffix.
    if name.startswith("."):
        return False
    return bool(re.search(r"\.(dcm|dicom)$|^[0-9.]+$|^[^.]+$", name, re.IGNORECASE))


def _read_values(data: bytes) -> dict[int, str]:
    """Read the text of the relevant elements, as far as they are in `data`, without preamble."""
    values: dict[int, str] = {}
    explicit, at = True, 0
    try:
        while at < len(data) and _tag(data, at) <= _CONTAINER:
            tag = _tag(data, at)
            if tag >> 16 != 2 and _SYNTAX in values:
                if values[_SYNTAX] in _UNREAD:
                    break
                explicit = values[_SYNTAX] != _IMPLICIT
            start, length = _measure(data, at, explicit)
            if length == _UNDEFINED:
                at = _skip(data, start, explicit, _SEQUENCE_END)
                continue
            if tag in (_CLASS, _SYNTAX, _DESCRIPTION, _SERIES, _CONTAINER):
                text = data[start : start + length].decode("utf-8", "replace")
                values[tag] = text.strip(" \0")
            at = start + length
    except (IndexError, RecursionError):  # truncated or invalid
        pass
    return values


def _tag(data: bytes, at: int) -> int:
    return _number(data, at, 2) << 16 | _number(data, at + 2, 2)


def _number(data: bytes, at: int, count: int) -> int:
    part = data[at : at + count]
    if len(part) != count:
        raise IndexError(at)
    return int.from_bytes(part, "little")


def _measure(data: bytes, at: int, explicit: bool) -> tuple[int, int]:
    """Return where the value of the element at `at` starts, and its length in bytes."""
    if not explicit or _tag(data, at) >> 16 == 0xFFFE:
        return at + 8, _number(data, at + 4, 4)
    if data[at + 4 : at + 6] in _LONG:
        return at + 12, _number(data, at + 8, 4)
    return at + 8, _number(data, at + 6, 2)


def _skip(data: bytes, at: int, explicit: bool, end: int) -> int:
    """Return the offset after the delimiter `end` of the sequence or item with content at `at`."""
    while True:
        tag = _tag(data, at)
        start, length = _measure(data, at, explicit)
        if tag == end:
            return start
        if length == _UNDEFINED:
            at = _skip(data, start, explicit, _ITEM_END if tag == _ITEM else _SEQUENCE_END)
        else:
            at = start + length
