"""Our scores beside published ones, laid out as the paper's Tables 2 and 3: one row a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from wsiseg.config import load_config
from wsiseg.errors import DataError
from wsiseg.evaluate.run import Evaluation

__all__ = ["Published", "format_comparison", "load_published"]

_OURS = "this checkpoint"


class Published(BaseModel):
    """Scores that somebody printed, in percent; what they did not print is left out."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """Of the method, as the row shows it."""
    source: str
    """Where the numbers stand."""
    protocol: Literal["oracle", "deploy"]
    """How classes were let through; only rows of one protocol are ever put together."""
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
    """One entry a row."""


def load_published(path: str | Path) -> tuple[Published, ...]:
    """Rows of a YAML file such as ``configs/published_bcss.yaml``.

    Raises
    ------
    ConfigError
        If the file is missing, is not YAML, or an entry or value is refused.
    """
    return load_config(path, _File).scores


def format_comparison(evaluation: Evaluation, published: Sequence[Published]) -> str:
    """A plain text table in percent: the published rows of the same protocol, then ours.

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
    wide = [max(map(len, column)) for column in zip(head, *table, strict=True)]
    lines = [f"protocol {evaluation.protocol}, %; published numbers are their authors'"]
    lines += [
        "  ".join([cells[0].ljust(wide[0]), *map(str.rjust, cells[1:], wide[1:])])
        for cells in (head, *table)
    ]
    left_out = len(published) - len(rows)
    if left_out:
        lines.append(f"{left_out} published row(s) of another protocol are not comparable")
    lines += [f"{one.name}: {one.source}" for one in rows]
    return "\n".join(lines)


def _published_cells(names: Sequence[str]) -> Callable[[Published], list[str]]:
    def cells(one: Published) -> list[str]:
        iou, dice = ([_show(by_name.get(n)) for n in names] for by_name in (one.iou, one.dice))
        return [one.name, *iou, _show(one.miou), *dice, _show(one.mdice)]

    return cells


def _own_cells(evaluation: Evaluation) -> list[str]:
    scores = evaluation.scores
    iou, dice = ([_show(100 * value) for value in values] for values in (scores.iou, scores.dice))
    return [_OURS, *iou, _show(100 * scores.miou), *dice, _show(100 * scores.mdice)]


def _show(percent: float | None) -> str:
    return "-" if percent is None or percent != percent else f"{percent:.2f}"
