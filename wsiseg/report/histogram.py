"""Stacked bars of area by confidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["draw_histogram", "find_median"]

_WIDTH, _HEIGHT, _GAP = 640, 160, 2  # of the drawing, in its own units
_TALLEST = 150

Counts = Sequence[Sequence[float]]
"""mm² of each class by confidence, in bins of the same width."""


def draw_histogram(counts: Counts, classes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rectangles (x, y, width, height) with their class's name and colours, span and area."""
    tallest = max((sum(bin_) for bin_ in zip(*counts, strict=True)), default=0.0)
    return list(_stack(counts, classes, _TALLEST / tallest)) if tallest > 0 else []


def _stack(
    counts: Counts, classes: Sequence[Mapping[str, Any]], scale: float
) -> Iterator[dict[str, Any]]:
    bins = len(counts[0])
    step = _WIDTH / bins
    for number, column in enumerate(zip(*counts, strict=True)):
        top = float(_HEIGHT)
        for area, known in zip(column, classes, strict=True):
            if area > 0:
                top -= area * scale
                yield {
                    **known, "x": number * step + _GAP / 2, "y": top, "width": step - _GAP,
                    "height": area * scale, "area": area,
                    "span": f"{number / bins:.2f} to {(number + 1) / bins:.2f}",
                }  # fmt: skip


def find_median(counts: Counts) -> tuple[float, float]:
    """The highest edge of a bin above which at least half of the area lies, and that share."""
    columns = [sum(column) for column in zip(*counts, strict=True)]
    whole, above = sum(columns), 0.0
    for number in reversed(range(len(columns))):
        above += columns[number]
        if above >= whole / 2:
            return number / len(columns), above / whole if whole else 0.0
    return 0.0, 1.0
