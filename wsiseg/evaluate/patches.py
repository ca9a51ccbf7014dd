"""Patches with masks, in the layout of BCSS-WSSS and LUAD-HistoSeg, checked whole before use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from wsiseg.annotations import BACKGROUND
from wsiseg.cases import Place, find_case, find_place, group_cases
from wsiseg.errors import DataError
from wsiseg.evaluate.mask_colors import find_renumbered
from wsiseg.image_files import list_images, read_image
from wsiseg.table import read_table, refuse

__all__ = [
    "MaskedPatches",
    "find_split",
    "load_masked_patches",
    "name_images",
    "read_mask",
    "to_numbers",
]

_SPELLINGS = {"valid": ("valid", "val"), "val": ("val", "valid")}
_PLAIN = {"L", "P", "I", "I;16", "1"}  # one channel, or a palette's numbers

Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class MaskedPatches:
    """RGB images of one size, each with its mask."""

    folder: Path
    """Where ``img/`` and ``mask/`` are."""
    images: tuple[Path, ...]
    """Sorted by name."""
    masks: tuple[Path, ...]
    """One per image."""
    classes: int
    """K: masks hold 0 .. K - 1, and K for background."""
    size: tuple[int, int]
    """Width and height of every patch in pixels."""
    cases: tuple[str, ...] | None
    """The case of each, from ``cases.csv`` or else the names; None if neither gives any."""
    places: tuple[Place | None, ...] = ()
    """Position of each on its slide, if its name gives it."""

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: Sequence[int]) -> tuple[NDArray[np.uint8], Labels]:
        """``(B, H, W, 3)`` uint8 RGB and ``(B, H, W)`` uint8 labels, `BACKGROUND` outside."""
        images = np.stack([read_image(self.images[index]) for index in indices])
        masks = np.stack([read_mask(self.masks[index]) for index in indices])
        labels = masks.astype(np.uint8)
        labels[masks == self.classes] = BACKGROUND
        return images, labels


def find_split(data: str | Path, split: str) -> Path:
    """Find the folder with ``img/`` and ``mask/``: `data`, or its `split` (``val`` is ``valid``).

    Raises
    ------
    DataError
        If there is no such folder.
    """
    data = Path(data)
    candidates = [data, *(data / name for name in _SPELLINGS.get(split, (split,)))]
    for folder in candidates:
        if (folder / "img").is_dir() and (folder / "mask").is_dir():
            return folder
    listed = " or ".join(str(folder) for folder in candidates)
    raise DataError(f"{data}: no img/ and mask/ in {listed}; give the folder that holds them")


def load_masked_patches(
    data: str | Path, classes: Sequence[str], split: str = "test"
) -> MaskedPatches:
    """Find the patches of a split and check every image and mask.

    Parameters
    ----------
    data
        A folder with ``img/`` and ``mask/``, or the data set's, with them in ``<split>/``. An
        image and its mask share a name; the suffix may differ. A mask holds one channel, or a
        palette's numbers: a class's number, or K for background. A table ``cases.csv`` beside
        ``img/`` and ``mask/``, with columns `image` and `case`, says which patient or slide each
        image is of; without it, the names are searched for them (`wsiseg.cases`).
    classes
        Class names in label order.

    Raises
    ------
    DataError
        If anything is wrong; lists every problem: images without mask and masks without image,
        files that cannot be read, sizes that differ, masks in colours, labels that are no class,
        masks whose palette is in another order than that of the others, images that ``cases.csv``
        lacks.
    """
    folder = find_split(data, split)
    problems: list[str] = []
    images, masks = (name_images(folder / name, problems) for name in ("img", "mask"))
    problems += [f"img/{images[name].name}: has no mask" for name in images if name not in masks]
    problems += [f"mask/{masks[name].name}: has no image" for name in masks if name not in images]
    shared = [name for name in images if name in masks]
    pairs = [(images[name], masks[name]) for name in shared]
    size = _check(pairs, classes, problems)
    problems += find_renumbered([mask for _, mask in pairs])
    if not images and not masks:
        problems.append("img/ holds no image")
    names = [image.name for image, _ in pairs]
    cases = _find_cases(folder / "cases.csv", names, problems)
    refuse(folder, problems)
    return MaskedPatches(
        folder, tuple(i for i, _ in pairs), tuple(m for _, m in pairs), len(classes), size, cases,
        tuple(map(find_place, names)),
    )  # fmt: skip


def _find_cases(path: Path, names: Sequence[str], problems: list[str]) -> tuple[str, ...] | None:
    """Find the case of each image."""
    cases: list[str | None]
    if path.is_file():
        given = _read_cases(path, names, problems)
        cases = [given.get(name) for name in names]
    else:
        cases = [find_case(name) for name in names]
    grouped = group_cases(names, cases)
    return None if grouped is None else tuple(grouped)


def _read_cases(path: Path, names: Sequence[str], problems: list[str]) -> dict[str, str]:
    """Read the case of each image that the table names, with or without its suffix."""
    table = read_table(path, known=("image", "case"), required=("image", "case"))
    problems += [f"{path.name}: {problem}" for problem in table.problems]
    by_name = {Path(name).stem: name for name in names} | {name: name for name in names}
    cases: dict[str, str] = {}
    for row in table.rows:
        name = by_name.get(Path(row["image"]).name)
        if name is None or not row["case"]:
            why = "has no case" if name else "is not an image here"
            problems.append(f"{path.name}, {row.where}: {row['image']!r} {why}")
        elif cases.setdefault(name, row["case"]) != row["case"]:
            problems.append(f"{path.name}, {row.where}: {name} was given another case above")
    problems += [f"img/{name}: is not in {path.name}" for name in names if name not in cases]
    return cases


def name_images(folder: Path, problems: list[str]) -> dict[str, Path]:
    """Return images by name without suffix, sorted by name."""
    images: dict[str, Path] = {}
    for path in list_images(folder):
        if path.stem in images:
            problems.append(
                f"{folder.name}/{path.name}: has the name of {images[path.stem].name} too"
            )
        images[path.stem] = path
    return images


def _check(
    pairs: Sequence[tuple[Path, Path]], classes: Sequence[str], problems: list[str]
) -> tuple[int, int]:
    """Read every file once; return the most common size."""
    with ThreadPoolExecutor() as pool:
        inspections = list(pool.map(partial(_inspect, classes=classes), pairs))
    sizes = Counter(size for size, _ in inspections if size is not None)
    usual = sizes.most_common(1)[0][0] if sizes else (0, 0)
    for (image, _), (size, wrong) in zip(pairs, inspections, strict=True):
        problems += wrong
        if size is not None and size != usual:
            problems.append(
                f"img/{image.name}: is {size[0]} x {size[1]} px; patches are of one size "
                f"(most are {usual[0]} x {usual[1]})"
            )
    return usual


def _inspect(
    pair: tuple[Path, Path], classes: Sequence[str]
) -> tuple[tuple[int, int] | None, list[str]]:
    """Return an image's width and height, if readable, and what is wrong with it or its mask."""
    image, mask = pair
    wrong: list[str] = []
    shapes: list[tuple[int, ...]] = []
    for path, read in ((image, read_image), (mask, read_mask)):
        try:
            pixels = read(path)
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
            wrong.append(f"{path.parent.name}/{path.name}: cannot be read ({error})")
            continue
        shapes.append(pixels.shape[:2])
        if path is mask:
            wrong += _check_labels(pixels, mask, classes)
    if len(shapes) == 2 and shapes[0] != shapes[1]:
        (height, width), (tall, wide) = shapes
        wrong.append(f"mask/{mask.name}: is {wide} x {tall} px, its image {width} x {height}")
    readable = shapes and not any(line.startswith("img/") for line in wrong)
    return ((shapes[0][1], shapes[0][0]) if readable else None), wrong


def _check_labels(mask: NDArray[np.integer], path: Path, classes: Sequence[str]) -> list[str]:
    odd = [value for value in np.unique(mask).tolist() if not 0 <= value <= len(classes)]
    if not odd:
        return []
    shown, count = ", ".join(map(str, odd[:5])), len(classes)
    return [
        f"mask/{path.name}: holds the labels {shown}; with {count} classes "
        f"({', '.join(classes)}) they are 0 to {count - 1}, and {count} for background"
    ]


def read_mask(path: Path) -> NDArray[np.integer]:
    """``(H, W)`` int64 numbers of a mask of one channel, or with a palette.

    Raises
    ------
    ValueError
        If it is in colours.
    OSError
        If it cannot be read.
    """
    with Image.open(path) as mask:
        return to_numbers(mask)


def to_numbers(mask: Image.Image) -> NDArray[np.integer]:
    """``(H, W)`` int64 numbers of an open mask, as of `read_mask`."""
    if mask.mode not in _PLAIN:
        raise ValueError(f"is in colours, mode {mask.mode}; a mask has one channel or a palette")
    return np.asarray(mask).astype(np.int64)
