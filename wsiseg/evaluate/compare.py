"""Our scores beside published ones, like the paper's Tables 2 and 3: one row per method."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from wsiseg.config import load_config
from wsiseg.errors import DataError
from wsiseg.evaluate.run import Evaluation

__all__ = ["Published", "format_comparison", "load_published"]

_OURS = "this checkpoint"
_WIDTH = 100
"""Columns of a terminal."""


class Published(BaseModel):
    """Published scores, in percent; those that were not published are left out."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """Name of the method, as its row shows it."""
    source: str
    """Where the numbers were published."""
    protocol: Literal["oracle", "deploy"]
    """How classes were gated; only rows of the same protocol are compared."""
    miou: float | None = Field(default=None, ge=0, le=100)
    """Mean IoU."""
    mdice: float | None = Field(default=None, ge=0, le=100)
    """Mean Dice."""
    iou: Mapping[str, float] = {}
    """IoU by class name."""
    dice: Mapping[str, float] = {}
    """Dice by class name."""


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    scores: tuple[Published, ...] = Field(min_length=1)
    """One entry per row."""


def load_published(path: str | Path) -> tuple[Published, ...]:
    """Read the rows of a YAML file such as ``configs/published_bcss.yaml``.

    Raises
    ------
    ConfigError
        If the file is missing, is not YAML, or an entry or value is refused.
    """
    return load_config(path, _File).scores


def format_comparison(evaluation: Evaluation, published: Sequence[Published]) -> str:
    """Format a plain text table in percent: published rows of the same protocol, then ours.

    Raises
    ------
    DataError
        If a published row names a class that was not scored.
    """
    names = evaluation.palette.names
    rows = [one for one in published if one.protocol == evaluation.protocol]
    for one in rows:
        unknown = sorted({*one.iou, *one.dice} - set(names))
        if unknown:
            raise DataError(
                f"{one.name}: scores the class {unknown[0]!r}; this checkpoint has "
                f"{', '.join(names)}"
            )
    table = [*map(_published_cells(names), rows), _own_cells(evaluation)]
    head = ["method", *(f"IoU {n}" for n in names), "mIoU", *(f"Dice {n}" for n in names), "mDice"]
    lines = [f"protocol {evaluation.protocol}, %; published numbers are their authors'"]
    lines += _lay_out([head, *table], [len(names) + 1])
    left_out = len(published) - len(rows)
    if left_out:
        lines.append(f"{left_out} published row(s) of another protocol are not comparable")
    for one in rows:
        lines += textwrap.wrap(f"{one.name}: {one.source}", _WIDTH, subsequent_indent="  ")
    return "\n".join(lines)


def _lay_out(rows: Sequence[Sequence[str]], breaks: Sequence[int]) -> list[str]:
    """Lay out rows of cells as aligned lines, in parts below each other if they do not fit.

    Each part repeats the first column. If not all columns fit, a new part starts before each
    column of `breaks`, and wherever the line is full.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    fits = sum(widths) + 2 * (len(widths) - 1) <= _WIDTH
    parts: list[list[int]] = [[]]
    for column in range(1, len(widths)):
        used = widths[0] + sum(2 + widths[other] for other in (*parts[-1], column))
        full = bool(parts[-1]) and used > _WIDTH
        if full or (not fits and column - 1 in breaks):
            parts.append([])
        parts[-1].append(column)
    return [
        "  ".join([cells[0].ljust(widths[0]), *(cells[at].rjust(widths[at]) for at in part)])
        for part in parts
        for cells in rows
    ]


def _published_cells(names: Sequence[str]) -> Callable[[Published], list[str]]:
    def cells(one: Published) -> list[str]:
        iou, dice = ([_show(by_name.get(n)) for n in names] for by_name in (one.iou, one.dice))
        return [one.name, *iou, _show(one.miou), *dice, _show(one.mdice)]

    return cells


def _own_cells(evaluation: Evaluation) -> list[str]:
    scores = evaluation.scores
    iou, dice = ([_show(100 * value) for value in values] for values in (scores.iou, scores.dice))
    name = _OURS if evaluation.predictions is None else evaluation.predictions.name
    return [name, *iou, _show(100 * scores.miou), *dice, _show(100 * scores.mdice)]


def _show(percent: float | None) -> str:
    return "-" if percent is None or percent != percent else f"{percent:.2f}"
