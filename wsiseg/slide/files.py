"""Slide files in a folder, what identifies one, and the images beside the pyramid."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from wsiseg.errors import SlideOpenError

__all__ = ["SLIDE_SUFFIXES", "LazyImages", "SharedFile", "find_slides", "identify_file", "is_slide"]

_LOG = logging.getLogger(__name__)

# DICOM is not here: one slide is a folder of .dcm files, and each would count as a slide.
SLIDE_SUFFIXES = frozenset(
    {".bif", ".czi", ".mrxs", ".ndpi", ".scn", ".svs", ".svslide", ".tif", ".tiff", ".vms", ".vmu"}
)
"""Lower-case suffixes of the files that `find_slides` takes."""

_ENDS = 64 * 1024


class LazyImages(Mapping[str, NDArray[np.uint8]]):
    """Images by name, read when they are looked up."""

    def __init__(self, names: tuple[str, ...], read: Callable[[str], NDArray[np.uint8]]) -> None:
        self._names = names
        self._read = read

    def __getitem__(self, name: str) -> NDArray[np.uint8]:
        if name not in self._names:
            raise KeyError(name)
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class SharedFile:
    """A file that several threads read from any place at once.

    Raises
    ------
    SlideOpenError
        If it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise SlideOpenError(f"{path}: cannot be read ({error.strerror})") from error
        self._lock = Lock()

    @property
    def stamp(self) -> tuple[int, ...]:
        """Numbers that change when the file is written or replaced."""
        status = os.fstat(self._file.fileno())
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    def read_at(self, offset: int, count: int) -> bytes:
        """Bytes ``offset .. offset + count``; `OSError` if the file ends before."""
        if hasattr(os, "pread"):
            data = os.pread(self._file.fileno(), count, offset)
        else:  # Windows
            with self._lock:
                self._file.seek(offset)
                data = self._file.read(count)
        if len(data) != count:
            raise OSError(f"the file ends within bytes {offset} to {offset + count}")
        return data

    def close(self) -> None:
        """Release the file."""
        self._file.close()


def identify_file(path: Path) -> str:
    """Hex sha256 of the file's size, first 64 KiB and last 64 KiB: cheap even over a network."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            head = file.read(_ENDS)
            file.seek(max(0, size - _ENDS))
            return hashlib.sha256(str(size).encode() + b":" + head + file.read(_ENDS)).hexdigest()
    except OSError as error:
        raise SlideOpenError(f"{path}: cannot be read ({error.strerror})") from error


def is_slide(path: Path) -> bool:
    """Whether `path` is a file, not hidden, whose suffix is a slide's; it is not opened."""
    return (
        path.suffix.lower() in SLIDE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def find_slides(
    folder: str | os.PathLike[str], nested: bool = False, *, broken: bool = False
) -> list[Path]:
    """Slide files in `folder`, sorted; with `nested`, in the folders below it too.

    Hidden files and folders, ``.zarr`` folders and the folders that hold an MRXS file's data are
    left out. Links to files are followed, links to folders are not, which is said. With `broken`,
    links that lead nowhere count as slides, so that opening them tells.

    Raises
    ------
    SlideOpenError
        If `folder` is not a folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise SlideOpenError(f"{root}: is not a folder")
    found: list[Path] = []
    for parent, folders, files in os.walk(root):
        paths = [Path(parent, name) for name in files]
        found += [path for path in paths if is_slide(path) or (broken and _is_broken(path))]
        for link in (Path(parent, name) for name in folders if nested):
            if link.is_symlink():
                _LOG.warning("%s: is a link to a folder, and not followed; give it by itself", link)
        companions = {Path(name).stem for name in files if name.lower().endswith(".mrxs")}
        folders[:] = [name for name in folders if nested and _is_walked(name, companions)]
    return sorted(found)


def _is_broken(path: Path) -> bool:
    named = path.suffix.lower() in SLIDE_SUFFIXES and not path.name.startswith(".")
    return named and path.is_symlink() and not path.exists()


def _is_walked(name: str, companions: set[str]) -> bool:
    hidden = name.startswith(".") or name.lower().endswith(".zarr")
    return not hidden and name not in companions
