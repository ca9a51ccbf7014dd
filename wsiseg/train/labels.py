"""Tables of labels: which classes show in what, and all that is wrong with them in one error."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsiseg.errors import DataError

__all__ = ["Label", "LabelRow", "gather_labels", "read_label_table", "refuse"]

Label = tuple[int, ...]
"""One 0 or 1 a class."""


class LabelRow(NamedTuple):
    """One line of a table."""

    where: str
    """Its place, for messages."""
    keys: dict[str, str]
    """What it labels, by column."""
    label: Label


def read_label_table(
    path: Path, keys: Sequence[tuple[str, ...]], classes: Sequence[str], problems: list[str],
    *, optional: Sequence[str] = (),
) -> Iterator[LabelRow]:  # fmt: skip
    """Read a CSV of key columns and either one 0/1 column a class or ``labels`` (``A;B``).

    Parameters
    ----------
    keys
        The sets of columns that may name what is labelled; the first that is there is taken.
    problems
        Takes in what is wrong; rows with a bad label are left out.
    optional
        Columns that are keys too if they are there.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        problems.append(f"cannot be read as CSV ({error})")
        return
    columns = list(table[0]) if table else []
    chosen = next((key for key in keys if set(key) <= set(columns)), keys[0])
    listed = "labels" in columns
    wanted = [*chosen, *(("labels",) if listed else classes)]
    told = [name for name in optional if name in columns and name not in wanted]
    known = {*wanted, *told}
    unknown = [] if listed else [name for name in columns if name and name not in known]
    if columns and (unknown or not set(wanted) <= set(columns)):
        named = " or ".join(",".join(key) for key in keys)
        problems.append(
            f"has the columns {columns}; needs {named} and either labels or {', '.join(classes)}"
        )
        return
    parse = _named if listed else _flagged
    for number, row in enumerate(table, start=2):
        where = f"line {number}"
        label = parse(row, where, classes, problems)
        if label is not None:
            yield LabelRow(
                where, {key: (row[key] or "").strip() for key in (*chosen, *told)}, label
            )


def _named(
    row: dict[str, str], where: str, classes: Sequence[str], problems: list[str]
) -> Label | None:
    names = {name.strip() for name in (row["labels"] or "").split(";")} - {""}
    unknown = sorted(names - set(classes))
    if unknown:
        problems.append(f"{where}: unknown class {unknown}; known are {', '.join(classes)}")
        return None
    return tuple(int(name in names) for name in classes)


def _flagged(
    row: dict[str, str], where: str, classes: Sequence[str], problems: list[str]
) -> Label | None:
    values = [(row[name] or "").strip() for name in classes]
    wrong = [f"{n} = {v!r}" for n, v in zip(classes, values, strict=True) if v not in ("0", "1")]
    if wrong:
        problems.append(f"{where}: {', '.join(wrong)}; a class is 0 or 1")
        return None
    return tuple(int(value) for value in values)


def gather_labels(
    labels: Sequence[Label], classes: Sequence[str], problems: list[str], what: str = "patch",
    *, must_show: bool = True,
) -> NDArray[np.float32]:  # fmt: skip
    """``(N, K)`` float32; a class that nothing shows is a problem, unless there are others."""
    found = np.array(labels, np.float32).reshape(-1, len(classes))
    if must_show and not problems:
        unseen = [name for at, name in enumerate(classes) if not found[:, at].any()]
        problems += [f"no {what} shows {name!r}, so it cannot be learned" for name in unseen]
    return found


def refuse(path: str | Path, problems: Sequence[str], what: str = "patches") -> None:
    """Raise one `DataError` that lists every problem, if there is one."""
    if problems:
        lines = "\n  ".join(problems)
        raise DataError(f"{path}: {len(problems)} problem(s) with the {what}\n  {lines}")
