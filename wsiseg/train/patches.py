"""Labelled patches: a CSV table, or a BCSS-WSSS folder, checked whole before training starts."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import UnidentifiedImageError

from wsiseg.cases import find_case
from wsiseg.config import digest_of
from wsiseg.digests import hash_files
from wsiseg.errors import DataError
from wsiseg.image_files import list_images, read_image
from wsiseg.labels.table import Label, LabelRow, SeenLabels, gather_labels, read_label_table
from wsiseg.table import read_header, read_table, refuse

__all__ = ["PatchSource", "Patches", "has_labels", "load_images", "load_patches"]

_CASES = ("case", "patient", "slide")
_FOLDERS = ("train", "training", "img")
"""Where a data set may have its patches."""
_DIGITS = re.compile(r"\[([01 ]*)\]")  # LUAD-HistoSeg puts blanks between


class PatchSource(Protocol):
    """Square RGB images of one size and their labels, wherever they are stored."""

    @property
    def labels(self) -> NDArray[np.float32]:
        """``(N, K)`` float32: 1 where the class is present, 0 where not, NaN where unknown."""
        ...

    @property
    def weights(self) -> NDArray[np.float32]:
        """``(N,)`` float32: weight of each patch, usually 1."""
        ...

    @property
    def known(self) -> NDArray[np.bool_] | None:
        """``(N, c, c)`` bool: the cells of each patch that its labels describe; None for all."""
        ...

    @property
    def side(self) -> int:
        """Side of every patch in pixels."""
        ...

    @property
    def mpp(self) -> float | None:
        """µm/px of the patches, or None where only the user knows it."""
        ...

    @property
    def identity(self) -> str:
        """Hash of the patches, wherever they are stored."""
        ...

    @property
    def cases(self) -> Sequence[str | None]:
        """The patient or slide of each patch, None where unknown."""
        ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Name of the patch, for messages."""
        ...

    def read(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """``(B, side, side, 3)`` uint8 RGB."""
        ...


@dataclass(frozen=True)
class Patches:
    """Image files as a `PatchSource`."""

    paths: tuple[Path, ...]
    labels: NDArray[np.float32]
    """``(N, K)`` float32: 1 where the class is present, 0 where not, NaN where unknown."""
    side: int
    """Side of every patch in pixels."""
    mpp: float | None = None
    """µm/px; image files do not say."""
    told: tuple[str, ...] = ()
    """The case of each patch by the table, empty where it gives none; or an empty tuple."""

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def weights(self) -> NDArray[np.float32]:
        """``(N,)`` float32: all 1."""
        return np.ones(len(self.paths), np.float32)

    @property
    def known(self) -> None:
        """Labels are of whole patches."""
        return None

    @cached_property
    def identity(self) -> str:
        """Hash of names, contents, labels and side."""
        names = [path.name for path in self.paths]
        return digest_of(names, hash_files(self.paths), self.labels.tolist(), self.side)

    @property
    def cases(self) -> list[str | None]:
        """The table's cases, else those of the file names."""
        given = self.told or ("",) * len(self.paths)
        return [case or find_case(path.name) for case, path in zip(given, self.paths, strict=True)]

    def name(self, index: int) -> str:
        """The file's name."""
        return self.paths[index].name

    def read(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """``(B, side, side, 3)`` uint8 RGB."""
        return np.stack([read_image(self.paths[index]) for index in indices])


@dataclass(frozen=True)
class _Row:
    """One patch, before it is checked."""

    where: str
    image: Path
    label: Label
    case: str = ""


def load_patches(
    path: str | Path,
    classes: Sequence[str],
    *,
    background: Sequence[str] = (),
    to_learn: bool = True,
) -> Patches:
    """Find the patches of a table or folder and check every one of them.

    Parameters
    ----------
    path
        A table with the column ``image`` (relative to it) and either one 0/1 column per class or
        a column ``labels`` of class names separated by ``;``; a column ``case``, ``patient`` or
        ``slide`` says which patches belong together. Or a BCSS-WSSS or LUAD-HistoSeg
        folder: images, in it or in its ``train/`` or ``training/``, whose names hold a digit per
        class in brackets, such as ``..._[1010].png`` or ``...-[1 0 1 0].png``.
    classes
        Class names in label order.
    background
        Names of kinds of background, which follow the classes. Labels may leave all of them out.
    to_learn
        Whether a class that no patch shows is a problem, as it cannot be learned.

    Returns
    -------
    Patches with a label for each of `classes` and `background`, NaN for those left out.

    Raises
    ------
    DataError
        If anything is wrong; lists every problem: unknown classes, labels that are not 0 or 1,
        images given twice, missing or unreadable, images that are not square or not of one size,
        classes that no patch shows.
    """
    path = _find(path)
    problems: list[str] = []
    read = _read_folder if path.is_dir() else _read_table
    rows = list(read(path, classes, background, problems))
    side = _check_images(rows, path, problems)
    names = (*classes, *background)
    padded = [(*row.label, *[np.nan] * (len(names) - len(row.label))) for row in rows]
    labels = gather_labels(padded, names, problems, must_show=to_learn)
    refuse(path, problems)
    return _to_patches(rows, labels, side)


def has_labels(path: str | Path) -> bool:
    """Whether `load_patches` would find labels: in a table, or in the name of any image.

    Raises
    ------
    DataError
        If there is no such file or folder.
    """
    path = _find(path)
    return not path.is_dir() or any(_DIGITS.search(image.name) for image in list_images(path))


def load_images(path: str | Path) -> Patches:
    """Find the images of a table or folder, whatever their labels, and check every one of them.

    Parameters
    ----------
    path
        A table as in `load_patches`, of which other columns are ignored; or a folder of images, in
        it or in its ``train/``, ``training/`` or ``img/``.

    Returns
    -------
    Patches whose labels are ``(N, 0)``.

    Raises
    ------
    DataError
        If anything is wrong; lists every problem, as `load_patches` does.
    """
    path = _find(path)
    problems: list[str] = []
    if path.is_dir():
        rows = [_Row(image.name, image, ()) for image in list_images(path)]
    else:
        rows = list(_place(path, _read_names(path, problems), problems))
    side = _check_images(rows, path, problems)
    refuse(path, problems)
    return _to_patches(rows, np.zeros((len(rows), 0), np.float32), side)


def _to_patches(rows: Sequence[_Row], labels: NDArray[np.float32], side: int) -> Patches:
    cases = tuple(row.case for row in rows)
    return Patches(tuple(row.image for row in rows), labels, side, told=cases)


def _find(path: str | Path) -> Path:
    """Return a table, or the folder that holds the images themselves."""
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: does not exist; give a CSV of patches or a folder of images")
    return next((path / name for name in _FOLDERS if (path / name).is_dir()), path)


def _read_folder(
    folder: Path, classes: Sequence[str], background: Sequence[str], problems: list[str]
) -> Iterator[_Row]:
    """Yield a folder's patches; only base names are read, as folders may hold brackets too."""
    names = (*classes, *background)
    counts = sorted({len(classes), len(names)})
    for image in list_images(folder):
        match = _DIGITS.search(image.name)
        label = "" if match is None else match[1].replace(" ", "")
        if match is None or len(label) not in counts:
            digits = "no digits" if match is None else f"{len(label)} digits"
            problems.append(
                f"{image.name}: has {digits} in brackets; "
                f"{' or '.join(map(str, counts))} of 0 or 1 are needed, for {', '.join(names)}"
            )
            continue
        yield _Row(image.name, image, tuple(int(digit) for digit in label))


def _read_table(
    path: Path, classes: Sequence[str], background: Sequence[str], problems: list[str]
) -> Iterator[_Row]:
    names = (*classes, *background)
    columns = read_header(path, ("image", "labels", *_CASES, *names))
    if "labels" not in columns and not {*background} & {*columns}:
        names = tuple(classes)
    rows = read_label_table(path, [("image",)], names, problems, optional=_CASES)
    yield from _place(path, rows, problems)


def _read_names(path: Path, problems: list[str]) -> Iterator[LabelRow]:
    """Yield a table's rows without labels; no other column is unknown, as it may be a class."""
    columns = read_header(path, ("image", *_CASES))
    table = read_table(path, [*dict.fromkeys(("image", *filter(None, columns)))], ("image",))
    problems += table.problems
    kept = [name for name in ("image", *_CASES) if name in table.columns]
    for row in table.rows:
        yield LabelRow(row.where, {name: row[name] for name in kept}, (), table.separator)


def _place(path: Path, rows: Iterable[LabelRow], problems: list[str]) -> Iterator[_Row]:
    """Yield the patches of a table's rows, each with its file and its case."""
    seen = SeenLabels()
    for row in rows:
        name = row.keys["image"]
        case = next((row.keys[key] for key in _CASES if row.keys.get(key)), "")
        if not name:
            problems.append(f"{row.where}: has no image")
        elif seen.add(os.path.realpath(path.parent / name), row, name, problems):
            yield _Row(f"{row.where}, {name}", path.parent / name, row.label, case)


def _check_images(rows: Sequence[_Row], path: Path, problems: list[str]) -> int:
    """Read every image of `path` once; return the common side, 0 if there is none."""
    with ThreadPoolExecutor() as pool:
        measured = list(pool.map(_measure, rows))
    sizes = Counter(size for size in measured if not isinstance(size, str))
    if not sizes:
        problems += [size for size in measured if isinstance(size, str)]
        if not problems:
            problems.append(_describe_lack(path))
        return 0
    usual = sizes.most_common(1)[0][0]
    side = usual[0]
    for row, size in zip(rows, measured, strict=True):
        if isinstance(size, str):
            problems.append(size)
        elif size[0] != size[1] or size != usual:
            problems.append(
                f"{row.where}: is {size[0]} x {size[1]} px; patches are square and of one size "
                f"(most are {usual[0]} x {usual[1]})"
            )
    return side


def _describe_lack(path: Path) -> str:
    if not path.is_dir() or path.name in _FOLDERS:
        return "holds no patch"
    return f"holds no patch, nor a folder {', '.join(f'{name}/' for name in _FOLDERS)} of them"


def _measure(row: _Row) -> tuple[int, int] | str:
    """Return width and height of an image that can be read whole, or what is wrong with it."""
    if not row.image.is_file():
        return f"{row.where}: no such image ({row.image})"
    try:
        height, width, _ = read_image(row.image).shape
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        return f"{row.where}: cannot be read ({error})"
    return width, height
