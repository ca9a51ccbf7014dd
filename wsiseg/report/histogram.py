"""Stacked bars of area by confidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["draw_histogram", "find_median"]

_WIDTH, _HEIGHT, _GAP = 640, 160, 2  # of the drawing, in SVG units
_TALLEST = 150  # the highest bar

Counts = Sequence[Sequence[float]]
"""mm² of each class (row) by confidence, in bins of equal width."""


def draw_histogram(counts: Counts, classes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rectangles (x, y, width, height) with name and colours of the class, span and area."""
    tallest = max((sum(bin_) for bin_ in zip(*counts, strict=True)), default=0.0)
    return list(_stack(counts, classes, _TALLEST / tallest)) if tallest > 0 else []


def _stack(
    counts: Counts, classes: Sequence[Mapping[str, Any]], scale: float
) -> Iterator[dict[str, Any]]:
    bins = len(counts[0])
    step = _WIDTH / bins
    for number, column in enumerate(zip(*counts, strict=True)):
        top = float(_HEIGHT)
        for area, class_ in zip(column, classes, strict=True):
            if area > 0:
                top -= area * scale
                yield {
                    **class_, "x": number * step + _GAP / 2, "y": top, "width": step - _GAP,
                    "height": area * scale, "area": area,
                    "span": f"{number / bins:.2f} to {(number + 1) / bins:.2f}",
                }  # fmt: skip


def find_median(counts: Counts) -> tuple[float, float]:
    """Find the highest lower edge of a bin with at least half of the area above, and the share."""
    columns = [sum(column) for column in zip(*counts, strict=True)]
    total, above = sum(columns), 0.0
    for number in reversed(range(len(columns))):
        above += columns[number]
        if above >= total / 2:
            return number / len(columns), above / total if total else 0.0
    return 0.0, 1.0
