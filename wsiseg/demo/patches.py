"""Labelled patches of a synthetic slide, as a person would pick them: labels only, no masks."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsiseg.annotations import BACKGROUND
from wsiseg.atomic import write_picture
from wsiseg.demo.layout import Truth
from wsiseg.errors import DataError
from wsiseg.geometry import Box
from wsiseg.slide import Slide, open_slide

__all__ = ["PRESENT", "SIDE", "pick_boxes", "sample_patches"]

SIDE = 224
"""Side of a patch in pixels at the truth's µm/px."""
PRESENT = 0.05
"""A class is present in a patch if it covers at least this share of it."""

_TISSUE = 0.75  # least share of tissue in a patch
_CLEAR = 0.7  # least share of the class in every other patch: people pick clear examples too
_TRIES = 400

Shares = NDArray[np.float64]


def sample_patches(
    slide: str | Path | Slide, truth: Truth, folder: str | Path, count: int, seed: int
) -> Path:
    """Cut `count` patches of tissue and write them with their labels.

    The classes take turns; every other patch of a class shows mostly that class, the rest may show
    any mixture. A class counts as present from 5 % of the patch on.

    Parameters
    ----------
    slide
        The slide, or its path.
    truth
        What `synthesize_slide` returned for it.
    folder
        Gets ``patches.csv`` (``image,<class>,...``, 0 or 1) and ``0000.png`` and so on, 224 x 224
        RGB at the truth's 0.5 µm/px.
    count
        Number of patches.
    seed
        Seed of the choice of patches.

    Returns
    -------
    Path of ``patches.csv``, which `wsiseg.train.load_patches` reads.

    Raises
    ------
    DataError
        If a class of the truth is in no patch, or the slide is smaller than a patch.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    boxes = pick_boxes(truth, count, np.random.default_rng(seed))
    if isinstance(slide, str | Path):
        with open_slide(slide) as opened:
            names = _write_images(opened, truth, boxes, folder)
    else:
        names = _write_images(slide, truth, boxes, folder)
    path = folder / "patches.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["image", *truth.names])
        for name, box in zip(names, boxes, strict=True):
            present = _shares(truth, box) >= PRESENT
            table.writerow([name, *present.astype(int).tolist()])
    return path


def pick_boxes(truth: Truth, count: int, rng: np.random.Generator) -> list[Box]:
    """Choose the patches that `sample_patches` cuts: the classes take turns."""
    height, width = truth.labels.shape
    if min(height, width) < SIDE:
        raise DataError(
            f"a slide of {width} x {height} px at {truth.mpp:g} µm/px holds no patch; "
            f"make it at least {SIDE} px a side"
        )
    places = [np.flatnonzero(truth.labels == label) for label in range(len(truth.names))]
    boxes = []
    for number in range(count):
        turn, label = divmod(number, len(truth.names))
        boxes.append(_pick_box(truth, places[label], label, turn % 2 == 0, rng))
    return boxes


def _pick_box(
    truth: Truth, places: NDArray[np.intp], label: int, clear: bool, rng: np.random.Generator
) -> Box:
    """Pick a patch around a random pixel of the class; the clearest if none is clear enough."""
    height, width = truth.labels.shape
    best, largest = None, 0.0
    for place in rng.choice(places, _TRIES) if len(places) else ():
        y, x = divmod(int(place), width)
        left, top = (
            int(np.clip(at - rng.integers(SIDE), 0, side - SIDE))
            for at, side in ((x, width), (y, height))
        )
        box = Box(left, top, SIDE, SIDE)
        shares = _shares(truth, box)
        if shares.sum() < _TISSUE or shares[label] < PRESENT:
            continue
        if shares[label] >= _CLEAR or not clear:
            return box
        if shares[label] > largest:
            best, largest = box, float(shares[label])
    if best is None:
        raise DataError(
            f"{truth.names[label]} covers {len(places)} px of the slide and no patch shows "
            f"{PRESENT:.0%} of it; make a larger slide"
        )
    return best


def _shares(truth: Truth, box: Box) -> Shares:
    """Return the share ``(K,)`` of the box that each class covers."""
    counts = np.bincount(truth.labels[box.slices()].ravel(), minlength=BACKGROUND + 1)
    return counts[: len(truth.names)] / (box.width * box.height)


def _write_images(slide: Slide, truth: Truth, boxes: list[Box], folder: Path) -> list[str]:
    names = [f"{number:04d}.png" for number in range(len(boxes))]
    for name, box in zip(names, boxes, strict=True):
        pixels = slide.read(box, truth.mpp)
        write_picture(Image.fromarray(pixels), folder / name, compress_level=1)
    return names
