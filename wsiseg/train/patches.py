"""Labelled patches: a CSV table, or a BCSS-WSSS folder, checked whole before training starts."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from wsiseg.errors import DataError

__all__ = ["Patches", "load_patches"]

_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_DIGITS = re.compile(r"\[([01 ]*)\]")  # LUAD-HistoSeg puts blanks between


@dataclass(frozen=True)
class Patches:
    """Square RGB images of one size, and which classes show in each."""

    paths: tuple[Path, ...]
    labels: NDArray[np.float32]
    """``(N, K)`` float32: 1 where the class shows, else 0."""
    side: int
    """Side of every patch in pixels."""

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """``(B, side, side, 3)`` uint8 RGB."""
        return np.stack([_read_image(self.paths[index]) for index in indices])


@dataclass(frozen=True)
class _Row:
    """One patch as it was found."""

    where: str
    image: Path
    label: tuple[int, ...]


def load_patches(path: str | Path, classes: Sequence[str]) -> Patches:
    """Find the patches of a table or folder and check every one of them.

    Parameters
    ----------
    path
        A CSV with the column ``image`` (relative to the CSV) and either one 0/1 column a class or
        a column ``labels`` of class names separated by ``;``. Or a BCSS-WSSS or LUAD-HistoSeg
        folder: images, in it or in its ``train/``, whose names hold one digit a class in brackets,
        such as ``..._[1010].png`` or ``...-[1 0 1 0].png``.
    classes
        Class names in label order.

    Raises
    ------
    DataError
        If anything is wrong; lists every problem: unknown classes, labels that are not 0 or 1,
        missing or unreadable images, images that are not square or not of one size, classes that
        no patch shows.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: does not exist; give a CSV of patches or a folder of images")
    if (path / "train").is_dir():
        path = path / "train"
    problems: list[str] = []
    read = _read_folder if path.is_dir() else _read_table
    rows = list(read(path, classes, problems))
    side = _check_images(rows, problems)
    labels = np.array([row.label for row in rows], np.float32).reshape(-1, len(classes))
    if not problems:
        unseen = [name for name, seen in zip(classes, labels.max(0), strict=True) if not seen]
        problems += [f"no patch shows {name!r}, so it cannot be learned" for name in unseen]
    if problems:
        lines = "\n  ".join(problems)
        raise DataError(f"{path}: {len(problems)} problem(s) with the patches\n  {lines}")
    return Patches(tuple(row.image for row in rows), labels, side)


def _read_folder(folder: Path, classes: Sequence[str], problems: list[str]) -> Iterator[_Row]:
    """Patches of a folder, by name; only the base name is read, as a folder may hold brackets."""
    for image in sorted(folder.iterdir()):
        if image.suffix.lower() not in _SUFFIXES:
            continue
        found = _DIGITS.search(image.name)
        label = "" if found is None else found[1].replace(" ", "")
        if found is None or len(label) != len(classes):
            digits = "no digits" if found is None else f"{len(label)} digits"
            problems.append(
                f"{image.name}: has {digits} in brackets; "
                f"{len(classes)} of 0 or 1 are needed, for {', '.join(classes)}"
            )
            continue
        yield _Row(image.name, image, tuple(int(digit) for digit in label))


def _read_table(path: Path, classes: Sequence[str], problems: list[str]) -> Iterator[_Row]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = list(csv.DictReader(file))
            columns = list(table[0]) if table else []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        problems.append(f"cannot be read as CSV ({error})")
        return
    listed = "labels" in columns
    wanted = ["image", "labels"] if listed else ["image", *classes]
    unknown = [] if listed else [c for c in columns if c not in wanted and c is not None]
    missing = [name for name in wanted if name not in columns]
    if missing or unknown:
        problems.append(
            f"has the columns {columns}; needs image and either labels or {', '.join(classes)}"
        )
        return
    for number, row in enumerate(table, start=2):
        where = f"line {number}"
        label = (
            _named(row, where, classes, problems)
            if listed
            else _flagged(row, where, classes, problems)
        )
        if label is not None:
            name = (row["image"] or "").strip()
            yield _Row(f"{where}, {name}", path.parent / name, label)


def _named(
    row: dict[str, str], where: str, classes: Sequence[str], problems: list[str]
) -> tuple[int, ...] | None:
    names = {name.strip() for name in (row["labels"] or "").split(";")} - {""}
    unknown = sorted(names - set(classes))
    if unknown:
        problems.append(f"{where}: unknown class {unknown}; known are {', '.join(classes)}")
        return None
    return tuple(int(name in names) for name in classes)


def _flagged(
    row: dict[str, str], where: str, classes: Sequence[str], problems: list[str]
) -> tuple[int, ...] | None:
    values = [(row[name] or "").strip() for name in classes]
    wrong = [f"{n} = {v!r}" for n, v in zip(classes, values, strict=True) if v not in ("0", "1")]
    if wrong:
        problems.append(f"{where}: {', '.join(wrong)}; a class is 0 or 1")
        return None
    return tuple(int(value) for value in values)


def _check_images(rows: Sequence[_Row], problems: list[str]) -> int:
    """Read every image once; the common side, 0 if there is none."""
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(_measure, rows))
    sizes = Counter(size for size in found if not isinstance(size, str))
    if not sizes:
        problems += [f for f in found if isinstance(f, str)] or ["holds no patch"]
        return 0
    usual = sizes.most_common(1)[0][0]
    side = usual[0]
    for row, size in zip(rows, found, strict=True):
        if isinstance(size, str):
            problems.append(size)
        elif size[0] != size[1] or size != usual:
            problems.append(
                f"{row.where}: is {size[0]} x {size[1]} px; patches are square and of one size "
                f"(most are {usual[0]} x {usual[1]})"
            )
    return side


def _measure(row: _Row) -> tuple[int, int] | str:
    """Width and height of an image that reads to its end, or what is wrong with it."""
    if not row.image.is_file():
        return f"{row.where}: no such image ({row.image})"
    try:
        height, width, _ = _read_image(row.image).shape
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        return f"{row.where}: cannot be read ({error})"
    return width, height


def _read_image(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
