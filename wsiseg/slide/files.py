"""Find slide files in folders, read them from several threads, and look up associated images."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from wsiseg.errors import SlideOpenError
from wsiseg.slide.description import was_written_here
from wsiseg.slide.dicom import find_series, read_header, series_files

__all__ = [
    "SLIDE_SUFFIXES",
    "LazyImages",
    "SharedFile",
    "find_slides",
    "find_unsearched",
    "gather_slide",
    "is_own_map",
    "is_slide",
    "name_slide",
    "slide_file",
]

_LOG = logging.getLogger(__name__)

# Without DICOM, as several .dcm files are one slide; see `find_slides`.
SLIDE_SUFFIXES = frozenset(
    {
        ".bif", ".btf", ".czi", ".mrxs", ".ndpi", ".qptiff", ".scn", ".svs", ".svslide", ".tf2",
        ".tf8", ".tif", ".tiff", ".vms", ".vmu",
    }
)  # fmt: skip
"""Lower-case suffixes of the files that `find_slides` returns."""

_UNREAD_SUFFIXES = frozenset(
    {
        ".afi", ".i2syntax", ".isyntax", ".jp2", ".kfb", ".lif", ".mds", ".nd2", ".oir", ".sdpc",
        ".tmap", ".vsi", ".zvi",
    }
)  # fmt: skip
"""Suffixes of slides that no reader here opens."""

_MAX_NAMED = 3
_MAP_SUFFIXES = (".ome.tif", ".ome.tiff")
_HEAD = 8192  # bytes; our own files have their description in the first 200

_MAX_NAME = 100  # letters of a series' description


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
    return _has_name(path) and os.path.isfile(path)  # without access, no error


def is_own_map(path: Path) -> bool:
    """Whether `path` is an OME-TIFF, by its name, and says that wsiseg wrote it: a map."""
    if not path.name.lower().endswith(_MAP_SUFFIXES):
        return False
    try:
        with path.open("rb") as file:
            return was_written_here(file.read(_HEAD).decode("latin-1"))
    except OSError:
        return False  # opening it as a slide will say why


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
        try:
            os.listdir(path)
        except OSError as error:
            raise SlideOpenError(f"{path}: cannot be listed ({error.strerror})") from error
        raise SlideOpenError(f"{path}: is a folder, and holds no DICOM series")
    raise SlideOpenError(
        f"{path}: is a folder of {len(series)} DICOM series; give a file of one of them, such as "
        f"{series[0][0].name}"
    )


def name_slide(path: Path) -> str:
    """Return a slide's name with an extension; a DICOM series has its folder's name or its own."""
    if os.path.isdir(path):
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
    left out. Links to files are followed; links to folders are not, with a warning. A warning also
    names slides in formats that no reader opens, and folders that cannot be listed. With `broken`,
    files that cannot be accessed, such as links to missing ones, and folders that cannot be listed
    count as slides, so that opening them reports the error.

    Raises
    ------
    SlideOpenError
        If `folder` is not a folder, or cannot be listed.
    """
    root = Path(folder)
    if not root.is_dir():
        raise SlideOpenError(f"{root}: is not a folder")
    slides: list[Path] = []
    closed: list[Path] = []
    unread: list[Path] = []
    for parent, folders, files in os.walk(root, onerror=partial(_tell_closed, root, closed)):
        paths = [Path(parent, name) for name in files]
        slides += [path for path in paths if is_slide(path) or (broken and _is_broken(path))]
        unread += [path for path in paths if _has_name(path, _UNREAD_SUFFIXES)]
        for link in (Path(parent, name) for name in folders if nested):
            if link.is_symlink():
                _LOG.warning("%s: is a link to a folder, and not followed; give it by itself", link)
        slides += _find_dicom(Path(parent))
        walked = [name for name in folders if _is_walked(name, _list_companions(files))]
        if not nested:
            slides += [path for name in walked if _is_series_folder(path := Path(parent, name))]
        folders[:] = walked if nested else []
    if unread:
        _tell_unread(root, sorted(unread))
    return sorted([*slides, *closed] if broken else slides)


def find_unsearched(folder: Path) -> list[Path]:
    """Find the folders in `folder` that `find_slides` searches only if `nested`, sorted."""
    _, names, files = next(os.walk(folder), ("", [], []))
    paths = [folder / name for name in names if _is_walked(name, _list_companions(files))]
    return sorted(path for path in paths if not path.is_symlink() and not _is_series_folder(path))


def _tell_closed(root: Path, closed: list[Path], error: OSError) -> None:
    """Note a folder that `os.walk` could not list; a search that found nothing would look whole."""
    folder = Path(error.filename or root)
    if folder == root:
        raise SlideOpenError(f"{root}: cannot be listed ({error.strerror})") from error
    _LOG.warning("%s: cannot be listed (%s); slides in it are left out", folder, error.strerror)
    closed.append(folder)


def _tell_unread(root: Path, files: Sequence[Path]) -> None:
    names = ", ".join(path.name for path in files[:_MAX_NAMED])
    _LOG.warning(
        "%s: %d slide(s) left out: %s%s; no reader opens %s; convert them to OME-TIFF or SVS",
        root, len(files), names, ", ..." if len(files) > _MAX_NAMED else "",
        ", ".join(sorted({path.suffix.lower() for path in files})),
    )  # fmt: skip


def _list_companions(files: Iterable[str]) -> set[str]:
    """Return the names of the folders that hold the data of MRXS files."""
    return {Path(name).stem for name in files if name.lower().endswith(".mrxs")}


def _has_name(path: Path, suffixes: Collection[str] = SLIDE_SUFFIXES) -> bool:
    return path.suffix.lower() in suffixes and not path.name.startswith(".")


def _is_broken(path: Path) -> bool:
    return _has_name(path) and not os.path.exists(path)


def _is_walked(name: str, companions: set[str]) -> bool:
    hidden = name.startswith(".") or name.lower().endswith(".zarr")
    return not hidden and name not in companions
