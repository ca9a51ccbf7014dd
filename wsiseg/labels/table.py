"""Read tables of labels, and collect all their errors."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsiseg.table import Table, TableRow, read_table, to_number

__all__ = [
    "Label",
    "LabelRow",
    "SeenLabels",
    "gather_labels",
    "name_classes",
    "parse_flag",
    "read_label_table",
]

Label = tuple[int, ...]
"""0 or 1 for each class."""

_FLAGS = {"true": 1, "t": 1, "yes": 1, "y": 1, "false": 0, "f": 0, "no": 0, "n": 0}


class LabelRow(NamedTuple):
    """One line of a table."""

    where: str
    """Location, for messages."""
    keys: dict[str, str]
    """The cells that identify what is labelled, by column."""
    label: Label
    separator: str = ","
    """The table's separator, which decides about decimal commas; see `to_number`."""


class SeenLabels:
    """The labels of a table so far, to detect repetitions."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, tuple[str, Label]] = {}

    def add(self, thing: Hashable, row: LabelRow, what: str, problems: list[str]) -> bool:
        """Return whether `thing` is new; if not, add a problem that names both lines."""
        where, label = self._seen.setdefault(thing, (row.where, row.label))
        if where == row.where:
            return True
        labels = "the same" if label == row.label else "other"
        problems.append(f"{row.where}: {what} was given in {where} with {labels} labels")
        return False


def read_label_table(
    path: Path, keys: Sequence[tuple[str, ...]], classes: Sequence[str], problems: list[str],
    *, flags: bool = False, optional: Sequence[str] = (),
) -> Iterator[LabelRow]:  # fmt: skip
    """Read a table of key columns and either one column per class or ``labels`` (``A;B``).

    A class column holds 0 or 1 in any form that `parse_flag` accepts.

    Parameters
    ----------
    keys
        Alternative sets of columns that identify what is labelled; the first present set is used.
    problems
        Receives error messages; rows with an invalid label are left out.
    flags
        Whether to allow columns of 0 and 1 that are not classes.
    optional
        Further key columns, if present.

    Raises
    ------
    DataError
        If the file is not a table; see `read_table`.
    """
    keyed = (name for key in keys for name in key)
    known = [*dict.fromkeys((*keyed, "labels", *classes, *optional))]
    table = read_table(path, known)
    columns = set(table.columns)
    chosen = next((key for key in keys if set(key) <= columns), None)
    listed = "labels" in columns
    both = [name for name in classes if listed and name in columns]
    has_labels = listed or (bool(classes) and set(classes) <= columns)
    if chosen is None or both or not has_labels:
        named = " or ".join(",".join(key) for key in keys)
        wanted = _list(classes) if classes else "a column of 0 and 1 for each class"
        problems.append(
            f"has the columns {list(table.columns)}; needs {named} and either labels or {wanted}"
        )
        return
    extra = [name for name in optional if name in columns and name not in (*chosen, *classes)]
    problems += [] if listed or flags else _strange_classes(table, classes)
    problems += table.problems
    for row in table.rows:
        label = (
            _named(row, classes, problems)
            if listed
            else _flagged(row, classes, table.separator, problems)
        )
        if label is not None:
            keys_of = {key: row[key] for key in (*chosen, *extra)}
            yield LabelRow(row.where, keys_of, label, table.separator)


def name_classes(path: Path, keys: Sequence[tuple[str, ...]]) -> list[str]:
    """List the classes of a table of labels: those in ``labels``, or its columns of 0 and 1.

    A column of 0 and 1 may have empty cells, and other values in one filled cell of ten, or in a
    single one if most are 0 or 1: these are typing errors, which `read_label_table` reports. Any
    other column, such as ``mpp`` or ``fold``, names no class.

    Raises
    ------
    DataError
        If the file is not a table; see `read_table`.
    """
    table = read_table(path, [*(name for key in keys for name in key), "labels"], warn=False)
    if "labels" not in table.columns:
        return [name for name in table.unknown if _means_flags([row[name] for row in table.rows])]
    named = (name.strip() for row in table.rows for name in row["labels"].split(";"))
    return [name for name in dict.fromkeys(named) if name]


def parse_flag(text: str, separator: str = ",") -> int | None:
    """Parse ``1``, ``1.0``, ``true``, ``yes`` as 1, and ``0``, ``0.0``, ``false``, ``no`` as 0.

    Anything else is None.
    """
    number = to_number(text, separator)
    if number in (0, 1):
        return int(number)
    return _FLAGS.get(text.casefold())


def _strange_classes(table: Table, classes: Sequence[str]) -> list[str]:
    """Report columns of 0 and 1 that are not among the classes."""
    return [
        f"column {name!r} holds labels, but the classes are {_list(classes)}; add it to the "
        f"classes, or remove it"
        for name in table.unknown
        if table.rows and all(parse_flag(row[name]) is not None for row in table.rows)
    ]


def _means_flags(cells: Sequence[str]) -> bool:
    """Whether a column is meant to hold 0 and 1 only; see `name_classes`."""
    filled = [cell for cell in cells if cell]
    wrong = sum(parse_flag(cell) is None for cell in filled)
    return 2 * wrong < len(filled) and wrong <= max(1, len(filled) // 10)


def _list(classes: Sequence[str]) -> str:
    """Format the classes, and how to set others."""
    return f"{', '.join(classes)} (others by --set 'classes=[A,B,...]')"


def _named(row: TableRow, classes: Sequence[str], problems: list[str]) -> Label | None:
    names = {name.strip() for name in row["labels"].split(";")} - {""}
    unknown = sorted(names - set(classes))
    if unknown:
        problems.append(f"{row.where}: unknown class {unknown}; known are {_list(classes)}")
        return None
    return tuple(int(name in names) for name in classes)


def _flagged(
    row: TableRow, classes: Sequence[str], separator: str, problems: list[str]
) -> Label | None:
    flags = {name: parse_flag(row[name], separator) for name in classes}
    wrong = [f"{name} = {row[name]!r}" for name, flag in flags.items() if flag is None]
    if wrong:
        problems.append(
            f"{row.where}: {', '.join(wrong)}; a class is 0 or 1 (or false or true, no or yes): "
            f"correct it, or remove the column if it is no class"
        )
        return None
    return tuple(flag for flag in flags.values() if flag is not None)


def gather_labels(
    labels: Sequence[Sequence[float]], classes: Sequence[str], problems: list[str],
    what: str = "patch", *, must_show: bool = True,
) -> NDArray[np.float32]:  # fmt: skip
    """Return ``(N, K)`` float32; if there are no other problems, report classes never shown."""
    array = np.array(labels, np.float32).reshape(-1, len(classes))
    if must_show and not problems:
        unseen = [name for index, name in enumerate(classes) if not (array[:, index] == 1).any()]
        problems += [f"no {what} shows {name!r}, so it cannot be learned" for name in unseen]
    return array
