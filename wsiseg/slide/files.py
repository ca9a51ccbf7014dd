"""Find slide files in folders, read them from several threads, and look up associated images."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from wsiseg.errors import SlideOpenError
from wsiseg.slide.dicom import find_series, read_header, series_files

__all__ = [
    "SLIDE_SUFFIXES",
    "LazyImages",
    "SharedFile",
    "find_slides",
    "gather_slide",
    "is_slide",
    "name_slide",
    "slide_file",
]

_LOG = logging.getLogger(__name__)

# Without DICOM, as several .dcm files are one slide; see `find_slides`.
SLIDE_SUFFIXES = frozenset(
    {".bif", ".czi", ".mrxs", ".ndpi", ".scn", ".svs", ".svslide", ".tif", ".tiff", ".vms", ".vmu"}
)
"""Lower-case suffixes of the files that `find_slides` returns."""

_MAX_NAME = 100


class LazyImages(Mapping[str, NDArray[np.uint8]]):
    """A mapping of names to images, which are read when looked up."""

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
    """A file that several threads may read from at once, at any offset.

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

    @property
    def size(self) -> int:
        """Size in bytes."""
        return os.fstat(self._file.fileno()).st_size

    def read_at(self, offset: int, count: int) -> bytes:
        """Read bytes ``offset .. offset + count``; `OSError` if the file ends before that."""
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


def is_slide(path: Path) -> bool:
    """Whether `path` is a file with a slide's suffix, and not hidden; it is not opened."""
    return (
        path.suffix.lower() in SLIDE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def gather_slide(path: Path) -> Path:
    """Return the path that represents the slide of `path`: the same for all files of a series.

    For the folder that holds an MRXS file's data, it is that file.
    """
    if path.is_dir():
        index = path.parent / f"{path.name}.mrxs"
        return index if index.is_file() else path
    files = series_files(path)
    if not files:
        return path
    return path.parent if _is_series_folder(path.parent) else files[0]


def slide_file(path: Path) -> Path:
    """Return the file to open for the slide that `path` represents.

    Raises
    ------
    SlideOpenError
        If it is missing, or is a folder that does not hold exactly one DICOM series.
    """
    path = gather_slide(path) if path.is_dir() else path
    if path.is_file():
        return path
    if path.is_symlink() and not path.exists():
        raise SlideOpenError(f"{path}: is a link to {os.readlink(path)}, which does not exist")
    if not path.is_dir():
        raise SlideOpenError(f"{path}: no such file")
    series = list(find_series(path).values())
    if len(series) == 1:
        return series[0][0]
    if not series:
        raise SlideOpenError(f"{path}: is a folder, and holds no DICOM series")
    raise SlideOpenError(
        f"{path}: is a folder of {len(series)} DICOM series; give a file of one of them, such as "
        f"{series[0][0].name}"
    )


def name_slide(path: Path) -> str:
    """Return a slide's name with an extension; a DICOM series has its folder's name or its own."""
    if path.is_dir():
        return f"{Path(os.path.abspath(path)).name}.dcm"  # resolves "."; a link keeps its name
    header = read_header(path)
    if header is None:
        return path.name
    # Text typed in at the scanner becomes a file name.
    name = re.sub(r"[^\w .+()-]+", "_", header.description).strip(" .")[:_MAX_NAME]
    return f"{name}.dcm" if name else f"{path.stem}.dcm"


def _is_series_folder(folder: Path) -> bool:
    """Whether `folder` is a slide: it holds the files of one DICOM series and no other slide."""
    return len(find_series(folder)) == 1 and not any(map(is_slide, folder.iterdir()))


def _find_dicom(folder: Path) -> list[Path]:
    """Return the path that represents each DICOM series in `folder`."""
    series = find_series(folder)
    if len(series) == 1 and _is_series_folder(folder):
        return [folder]
    return [files[0] for files in series.values()]


def find_slides(
    folder: str | os.PathLike[str], nested: bool = False, *, broken: bool = False
) -> list[Path]:
    """Find the slides in `folder`, sorted; with `nested`, also in the folders below it.

    A DICOM series is one slide, represented by its folder if that holds no other slide (it may be
    `folder` itself or lie in it), else by the first of its files.

    Hidden files and folders, ``.zarr`` folders and the folders that hold an MRXS file's data are
    left out. Links to files are followed; links to folders are not, with a warning. With `broken`,
    links to missing files count as slides, so that opening them reports the error.

    Raises
    ------
    SlideOpenError
        If `folder` is not a folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise SlideOpenError(f"{root}: is not a folder")
    slides: list[Path] = []
    for parent, folders, files in os.walk(root):
        paths = [Path(parent, name) for name in files]
        slides += [path for path in paths if is_slide(path) or (broken and _is_broken(path))]
        for link in (Path(parent, name) for name in folders if nested):
            if link.is_symlink():
                _LOG.warning("%s: is a link to a folder, and not followed; give it by itself", link)
        slides += _find_dicom(Path(parent))
        companions = {Path(name).stem for name in files if name.lower().endswith(".mrxs")}
        walked = [name for name in folders if _is_walked(name, companions)]
        if not nested:
            slides += [path for name in walked if _is_series_folder(path := Path(parent, name))]
        folders[:] = walked if nested else []
    return sorted(slides)


def _is_broken(path: Path) -> bool:
    has_name = path.suffix.lower() in SLIDE_SUFFIXES and not path.name.startswith(".")
    return has_name and path.is_symlink() and not path.exists()


def _is_walked(name: str, companions: set[str]) -> bool:
    hidden = name.startswith(".") or name.lower().endswith(".zarr")
    return not hidden and name not in companions
