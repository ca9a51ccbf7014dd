"""Read labels from a table of points or rectangles: slide,x,y[,width,height],class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import shapely

from wsiseg.errors import DataError
from wsiseg.labels.mark import Drawn, Mark
from wsiseg.table import Table, TableRow, list_problems, read_header, read_table, to_number

__all__ = ["holds_regions", "read_regions"]

_NEEDED = ("slide", "x", "y", "class")
_SIZE = ("width", "height")
_COLUMNS = (*_NEEDED, *_SIZE)


def holds_regions(path: Path) -> bool:
    """Whether a table has the column ``class``, which tables of tiles lack.

    Raises
    ------
    DataError
        If the file is not a table; see `read_header`.
    """
    return "class" in read_header(path, _COLUMNS)


def read_regions(path: Path) -> dict[str, Drawn]:
    """Read points, or rectangles where width and height are given, by slide.

    Raises
    ------
    DataError
        If the table cannot be read, or a cell is not a number; lists every such line.
    """
    table = read_table(path, _COLUMNS, _NEEDED)
    problems = list(table.problems)
    by_slide: dict[str, Drawn] = {}
    for row in table.rows:
        shape = _shape(row, table, problems)
        if shape is not None:
            drawn = by_slide.setdefault(row["slide"], Drawn())
            drawn.marks.append(Mark(row["class"], shape, f"{path}: {row.where}"))
    if problems:
        raise DataError(f"{path}: {len(problems)} problem(s){list_problems(problems)}")
    return by_slide


def _shape(
    row: TableRow, table: Table, problems: list[str]
) -> shapely.Point | shapely.Polygon | None:
    sized = [name for name in _SIZE if name in table.columns and row[name]]
    numbers = _read_numbers(row, ("x", "y", *sized), table.separator, problems)
    if numbers is None:
        return None
    if len(sized) == 1 or min(numbers[2:], default=1) <= 0:
        problems.append(f"{row.where}: width and height need to be two numbers above 0, or empty")
        return None
    x, y, *size = numbers
    return shapely.box(x, y, x + size[0], y + size[1]) if size else shapely.Point(x, y)


def _read_numbers(
    row: TableRow, columns: Sequence[str], separator: str, problems: list[str]
) -> list[float] | None:
    numbers = [to_number(row[name], separator) for name in columns]
    wrong = [f"{c} = {row[c]!r}" for c, n in zip(columns, numbers, strict=True) if np.isnan(n)]
    if wrong:
        problems.append(f"{row.where}: {', '.join(wrong)} is not a number")
    return None if wrong else numbers
