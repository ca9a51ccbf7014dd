"""Every pixel of every level of real slides, from the direct reader and from OpenSlide.

    python -m tests.whole_slides [SLIDE ...]

compares all of them, piece by piece, and prints a table; without slides, all that lie beside the
checkout. `test_whole_slides` compares one slide whole and a sample of the others.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import openslide
from numpy.typing import NDArray

from wsiseg.config import SlideConfig
from wsiseg.errors import SlideOpenError, SlideReadError
from wsiseg.geometry import Box, Size
from wsiseg.slide.base import composite_on_white
from wsiseg.slide.direct import DirectReader

SLIDES = Path(__file__).resolve().parents[2] / "shared" / "data" / "slides"
PIECE = 4096
"""Side of what is compared at once; OpenSlide cuts larger regions so, and then interpolates."""
CLOSE = 1 / 1024
"""Offset in pixels that no interpolation in 256ths can see."""

Counts = NDArray[np.int64]
"""``(256,)``: how many pixels differ by so much in the colour that differs most."""


def compare(direct: DirectReader, peer: openslide.OpenSlide, level: int, box: Box) -> Counts:
    """Differences within `box` of a level, in its pixels."""
    corner = tuple(round(at * peer.level_downsamples[level]) for at in box[:2])
    image = peer.read_region(corner, level, (box.width, box.height))
    want = composite_on_white(np.asarray(image))
    got = direct.read_level(level, box)
    furthest = np.maximum(got, want) - np.minimum(got, want)
    return np.bincount(furthest.max(axis=2).ravel(), minlength=256)


def pieces(size: Size, downsample: float) -> Iterator[Box]:
    """A level in pieces whose corners OpenSlide hits."""
    rows, columns = (list(pairwise(cuts(side, downsample))) for side in (size.height, size.width))
    for top, bottom in rows:
        for left, right in columns:
            yield Box(left, top, right - left, bottom - top)


def cuts(length: int, downsample: float) -> list[int]:
    """Pixels of a level, few and none too far apart, that lie on whole level-0 pixels.

    OpenSlide takes level-0 corners; of a level 3.9996 times smaller few pixels have one, and
    from all others it interpolates.
    """
    found = [0]
    while length - found[-1] > PIECE:
        near = np.arange(found[-1] + 1, found[-1] + PIECE + 1)
        offset = np.abs(np.rint(near * downsample) / downsample - near)
        found.append(int(near[offset < CLOSE].max(initial=int(near[offset.argmin()]))))
    return [*found, length]


def compare_whole(path: Path) -> Iterator[tuple[int, Counts]]:
    """Each level and its differences.

    Raises
    ------
    SlideOpenError, SlideReadError
        If the direct reader does not take the file.
    """
    config = SlideConfig(mpp_override=0.25)
    with DirectReader(path, config) as direct, openslide.OpenSlide(path) as peer:
        for level in range(len(direct.level_sizes)):
            boxes = pieces(direct.level_sizes[level], peer.level_downsamples[level])
            counts = (compare(direct, peer, level, box) for box in boxes)
            yield level, sum(counts, np.zeros(256, np.int64))


def main() -> int:
    """Print the table; 1 if a pixel differs by more than 1."""
    given = [Path(name) for name in sys.argv[1:]]
    paths = given or sorted(path for path in SLIDES.rglob("*.*") if path.suffix != ".md")
    lines = ["| slide | level | pixels | equal | differ by 1 | by more | s |", "|" + "---|" * 7]
    wrong = 0
    for path in paths:
        started = time.perf_counter()
        try:
            for level, counts in compare_whole(path):
                took, more = time.perf_counter() - started, int(counts[2:].sum())
                lines.append(
                    f"| {path.name} | {level} | {counts.sum():,} | {counts[0]:,} | {counts[1]:,} "
                    f"| {more:,} | {took:.1f} |"
                )
                wrong += more
                started = time.perf_counter()
        except (SlideOpenError, SlideReadError) as error:
            lines.append(f"| {path.name} | | refused: {str(error).split(': ', 1)[1]} | | | | |")
    sys.stdout.write("\n".join([*lines, ""]))
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
