"""The table of suggested places: frames on slides that are worth labelling, the best first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, astuple, dataclass, fields
from pathlib import Path

from wsiseg.errors import DataError
from wsiseg.table import Table, TableRow, format_csv, read_table, refuse, to_number
from wsiseg.text import write_text

__all__ = ["PLACES", "Place", "read_places", "write_places"]

PLACES = "suggestions.csv"
"""The table's name in the folder that `wsiseg suggest` writes."""


@dataclass(frozen=True)
class Place:
    """A frame; its position is in level-0 pixels as QuPath shows them, from the slide's bounds."""

    rank: int
    """From 1, the most useful place; of each rank there is one."""
    slide: str
    """Name in the run, as `wsiseg.labels.name_in_run` gives it."""
    row: int
    """Of the tile that the frame is."""
    col: int
    x: float
    y: float
    width: float
    height: float
    uncertainty: float
    """`wsiseg.suggest.Suggestion.uncertainty`, 0 to 1."""
    predicted: str
    """The class that the map shows there."""
    map: str = ""
    """What the map is known by that the place was chosen on; empty in tables of before."""


_COLUMNS = tuple(field.name for field in fields(Place))
_REQUIRED = tuple(field.name for field in fields(Place) if field.default is MISSING)
_POSITIVE = "number above 0"
_NEEDED = {
    "rank": "whole number from 1", "row": "whole number from 0", "col": "whole number from 0",
    "x": "number", "y": "number", "width": _POSITIVE, "height": _POSITIVE, "uncertainty": "number",
}  # fmt: skip
"""What a cell of each column with numbers needs to be."""


def write_places(places: Sequence[Place], path: str | Path) -> Path:
    """Write the table, a row per place; return the path."""
    return write_text(format_csv([_COLUMNS, *map(astuple, places)]), path)


def read_places(folder: str | Path) -> list[Place]:
    """Read the places of a folder that `wsiseg suggest` wrote, in the order of their ranks.

    Raises
    ------
    DataError
        If there is no table in the folder, or it cannot be read; lists each damaged row.
    """
    path = Path(folder) / PLACES
    if not path.is_file():
        raise DataError(
            f"{folder}: has no {PLACES}; give the folder that `wsiseg suggest OUT -o FOLDER` wrote"
        )
    table = read_table(path, _COLUMNS, _REQUIRED)
    problems = list(table.problems)
    lines: dict[int, int] = {}
    places = []
    for row in table.rows:
        place = _parse(row, table, problems)
        if place is not None and lines.setdefault(place.rank, row.line) != row.line:
            first = lines[place.rank]
            problems.append(f"{row.where}: rank {place.rank} is that of line {first}, too")
        elif place is not None:
            places.append(place)
    refuse(path, problems, "places")
    if not places:
        raise DataError(f"{path}: lists no place; make it again with `wsiseg suggest`")
    return sorted(places, key=lambda place: place.rank)


def _parse(row: TableRow, table: Table, problems: list[str]) -> Place | None:
    """Parse a row; None, with a new problem, if it is damaged."""
    numbers = {name: to_number(row[name], table.separator) for name in _NEEDED}
    for name, number in numbers.items():
        if not _fits(name, number):
            problems.append(f"{row.where}: {name} is {row[name]!r}, which is no {_NEEDED[name]}")
            return None
    if not row["slide"]:
        problems.append(f"{row.where}: names no slide")
        return None
    rank, tile_row, tile_col = (int(numbers[name]) for name in ("rank", "row", "col"))
    return Place(
        rank, row["slide"], tile_row, tile_col, numbers["x"], numbers["y"], numbers["width"],
        numbers["height"], numbers["uncertainty"], row["predicted"], row.cells.get("map", ""),
    )  # fmt: skip


def _fits(name: str, number: float) -> bool:
    kind = _NEEDED[name]
    if "whole" in kind:
        return number.is_integer() and number >= (name == "rank")
    return number > 0 if kind == _POSITIVE else number == number
