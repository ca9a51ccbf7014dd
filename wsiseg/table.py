"""Read CSV tables as people and spreadsheets write them, without dropping anything silently.

Also write them, so that no spreadsheet takes a name for a formula.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import logging
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsiseg.errors import DataError

__all__ = [
    "Table",
    "TableRow",
    "format_csv",
    "free_columns",
    "guard",
    "list_problems",
    "read_header",
    "read_table",
    "refuse",
    "to_number",
    "unguard",
]

_LOG = logging.getLogger(__name__)

_MAX_LISTED = 10
"""Number of examples in one message; further ones are only counted."""
_SEPARATORS = (",", ";", "\t")
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"), (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # fmt: skip
_NEAR, _NEAR_SHORT = 0.82, 0.66  # similarity ratios; the second for names of three letters
_NO_TEXT = re.compile(r"[\x00-\x08\x0e-\x1f]")
_SEPARATOR_LINE = re.compile(r'"?sep=([,;\t])"?', re.IGNORECASE)  # Excel's first line
_FORMULA = re.compile(r"[=+\-@\t\r]")
_GUARDED = re.compile(r"'[=+\-@\t\r]")


@dataclass(frozen=True)
class TableRow:
    """One row: its cells, stripped, by column; empty where the row ends early."""

    line: int
    """Line number in the file, from 1, where the row begins."""
    cells: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells[column]

    @property
    def where(self) -> str:
        """Location of the row, for messages."""
        return f"line {self.line}"


@dataclass(frozen=True)
class Table:
    """The result of `read_table`."""

    path: Path
    columns: tuple[str, ...]
    """Known columns spelt as in `known`, others as in the file."""
    unknown: tuple[str, ...]
    """Columns that are not known; a warning has been logged."""
    rows: tuple[TableRow, ...]
    problems: tuple[str, ...]
    """One message, with its line, for each rejected row; `rows` leaves these out."""
    separator: str


def read_table(
    path: str | Path, known: Sequence[str], required: Sequence[str] = (), *, warn: bool = True
) -> Table:
    """Read a table whose first line names its columns.

    The separator may be a comma, a semicolon or a tab; the text UTF-8, UTF-16 or UTF-32; anything
    else is read as Windows-1252 (Latin-1), with a warning. Case and blanks in column names are
    ignored. Empty rows are skipped, and so is an unnamed first column that only numbers the rows.
    The apostrophe that keeps a spreadsheet from reading a cell as a formula (`guard`) is removed.

    Parameters
    ----------
    known
        Names of the expected columns. Any other column causes a warning, or an error if its name
        nearly matches an expected one that is missing.
    required
        Names among `known` that must be present.
    warn
        Whether to log warnings: about unknown columns, and about text that is not UTF-8.

    Raises
    ------
    DataError
        If the file cannot be read, is empty or not text, or its header is invalid. Invalid rows
        are reported in `Table.problems`.
    """
    path = Path(path)
    lines, separator = _split(_decode(path, warn), known, path)
    head = next(lines, None)
    if head is None:
        raise DataError(f"{path}: is empty; its first line names columns: {', '.join(known)}")
    columns, unknown = _name_columns(head.cells, known, required, path)
    body = list(lines)
    if _is_numbered(columns, body):
        columns, body = columns[1:], [_Line(line.number, line.cells[1:]) for line in body]
    problems: list[str] = []
    rows = tuple(_read_rows(body, columns, separator, problems))
    if unknown and warn:
        _LOG.warning(
            "%s: ignoring unknown column(s) %s; known columns are %s",
            path, _shorten(map(repr, unknown)), ", ".join(known),
        )  # fmt: skip
    named = tuple(column for column in columns if column)
    return Table(path, named, tuple(unknown), rows, tuple(problems), separator)


def read_header(path: str | Path, known: Sequence[str]) -> list[str]:
    """Return the columns as `read_table` finds them, known ones spelt as in `known`; logs nothing.

    Empty if the file is.

    Raises
    ------
    DataError
        If the file cannot be read, or is not text.
    """
    path = Path(path)
    lines, _ = _split(_decode(path, warn=False), known, path)
    head = next(lines, None)
    return [] if head is None else _spell(head.cells, known)


def list_problems(problems: Sequence[str]) -> str:
    """Format up to ten problems, one per indented line, and the number of the remaining ones."""
    shown = "".join(f"\n  {problem}" for problem in problems[:_MAX_LISTED])
    more = len(problems) - _MAX_LISTED
    return f"{shown}\n  and {more:,} more" if more > 0 else shown


def refuse(path: str | Path, problems: Sequence[str], what: str = "patches") -> None:
    """Raise a `DataError` that counts the problems and lists the first ten, if there are any."""
    if problems:
        raise DataError(
            f"{path}: {len(problems):,} problem(s) with the {what}{list_problems(problems)}"
        )


def to_number(text: str, separator: str = ",") -> float:
    """Return the finite number in a cell; NaN if there is none.

    In tables separated by semicolons or tabs, a comma is a decimal mark.
    """
    try:
        number = float(text if separator == "," else text.replace(",", "."))
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def format_csv(rows: Iterable[Iterable[object]]) -> str:
    """Format rows as CSV for people, each cell as its text, guarded (`guard`)."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerows([guard(str(cell)) for cell in row] for row in rows)
    return text.getvalue()


def free_columns(names: Sequence[str], taken: Collection[str]) -> list[str]:
    """Return a column for each class: its name, after "class" if a column of the table has it."""
    columns = []
    for name in names:
        column = name
        while column in taken or (column != name and column in names):
            column = f"class {column}"
        columns.append(column)
    return columns


def guard(text: str) -> str:
    """Prefix `text` with an apostrophe if a spreadsheet would read it as a formula."""
    if _FORMULA.match(text) and (text != text.strip() or math.isnan(to_number(text))):
        return "'" + text
    return text


def unguard(text: str) -> str:
    """Undo `guard`."""
    return text[1:] if _GUARDED.match(text) else text


# -- text ----------------------------------------------------------------------------------------


def _decode(path: Path, warn: bool) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise DataError(f"{path}: is a workbook or an archive; save the sheet as CSV (UTF-8)")
    text = _as_text(data, path, warn)
    match = _NO_TEXT.search(text)
    if match:
        raise DataError(
            f"{path}: is not a text table: it contains the character {ord(match[0]):#04x}; save it "
            f"as CSV (UTF-8)"
        )
    return text


def _as_text(data: bytes, path: Path, warn: bool) -> str:
    mark, encoding = next(
        ((bom, name) for bom, name in _BOMS if data.startswith(bom)), (b"", _guess(data))
    )
    try:
        return data[len(mark) :].decode(encoding).lstrip("\ufeff")  # some tools write it twice
    except UnicodeDecodeError as error:
        if mark or encoding != "utf-8":
            raise DataError(f"{path}: cannot be read as {encoding.upper()} ({error})") from error
        line = data.count(b"\n", 0, error.start) + 1
    if warn:
        _LOG.warning(
            "%s: is not UTF-8 (first in line %d); read as Windows-1252 (Latin-1): check names that "
            "are not plain ASCII, or save it as UTF-8", path, line,
        )  # fmt: skip
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _guess(data: bytes) -> str:
    """Guess the encoding: the zero bytes of ASCII column names reveal UTF-16 without a mark."""
    if len(data) > 1 and data[0] and not data[1]:
        return "utf-16-le"
    if len(data) > 1 and data[1] and not data[0]:
        return "utf-16-be"
    return "utf-8"


@dataclass(frozen=True)
class _Line:
    number: int
    cells: list[str]


def _split(text: str, known: Sequence[str], path: Path) -> tuple[Iterator[_Line], str]:
    """Return the lines that are not empty, and the separator that yields most known columns."""
    declaration = _SEPARATOR_LINE.fullmatch(text.partition("\n")[0].strip())
    if declaration:
        return _lines(text, declaration[1], path, skip=1), declaration[1]
    folded = {_fold(name) for name in known}

    def count_known(separator: str) -> tuple[int, int]:
        try:
            first = next(_lines(text, separator, path), None)
        except DataError:  # a quoted cell is followed by another separator
            return -1, 0
        cells = first.cells if first else []
        return len(folded & set(map(_fold, cells))), len(cells)

    separator = max(_SEPARATORS, key=count_known)  # the first on a tie
    return _lines(text, separator, path), separator


def _lines(text: str, separator: str, path: Path, skip: int = 0) -> Iterator[_Line]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True,
                        skipinitialspace=True)  # fmt: skip
    before = 0
    try:
        for row in reader:
            cells = [unguard(cell.strip()) for cell in row]
            if any(cells) and before >= skip:
                yield _Line(before + 1, cells)
            before = reader.line_num  # a quoted cell may hold line ends
    except csv.Error as error:
        raise DataError(
            f"{path}: cannot be read as CSV from line {before + 1} on ({error}); look for a "
            f"quotation mark that is not closed"
        ) from error


# -- columns and rows ----------------------------------------------------------------------------


def _fold(name: str) -> str:
    return " ".join(name.split()).casefold()


def _name_columns(
    head: Sequence[str], known: Sequence[str], required: Sequence[str], path: Path
) -> tuple[list[str], list[str]]:
    """Return the columns in order, known ones spelt as in `known`, and the unknown ones."""
    columns = _spell(head, known)
    repeated = [name for name, times in Counter(filter(None, columns)).items() if times > 1]
    if repeated:
        raise DataError(f"{path}: has the column {repeated[0]!r} more than once; keep one")
    unknown = [name for name in columns if name and name not in known]
    _check_separator(head, known, path)
    absent = [name for name in known if name not in columns]
    for name in unknown:
        suggestion = _nearest(name, absent)
        if suggestion:
            raise DataError(
                f"{path}: has the column {name!r}, which is unknown; is it {suggestion!r}?"
            )
    missing = [name for name in required if name in absent]
    if missing:
        others = [name for name in known if name not in required]
        optional = f" and may have {_shorten(map(repr, others))}" if others else ""
        raise DataError(
            f"{path}: has the columns {_shorten(map(repr, columns))}; needs "
            f"{_shorten(map(repr, missing))}{optional}"
        )
    return columns, unknown


def _spell(head: Sequence[str], known: Sequence[str]) -> list[str]:
    """Spell the columns as in `known`, where case and blanks alone differ and it is clear which."""
    count = Counter(map(_fold, known))
    by_fold = {_fold(name): name for name in known if count[_fold(name)] == 1}
    return [name if name in known else by_fold.get(_fold(name), name) for name in head]


def _check_separator(head: Sequence[str], known: Sequence[str], path: Path) -> None:
    """Raise `DataError` if a header of one column is several names with another separator."""
    folded = {*map(_fold, known)}
    parts = re.split(r"\s*([|:，；、]|\s)\s*", head[0])
    names = {*map(_fold, parts[::2])}
    expected = names & folded
    is_valid = len(head) > 1 or len(parts) == 1 or _fold(head[0]) in folded
    if not is_valid and expected and (parts[1].strip() or expected == names):
        raise DataError(
            f"{path}: has {parts[1]!r} between its columns; use commas, semicolons or tabs"
        )


def _nearest(name: str, absent: Iterable[str]) -> str | None:
    """Return the missing column that `name` most likely means: similar, or one of its words."""
    folded = _fold(name)
    words = set(re.split(r"[\W_]+", folded))
    for wanted in absent:
        other = _fold(wanted)
        similarity = difflib.SequenceMatcher(None, folded, other).ratio()
        near = similarity >= (_NEAR_SHORT if len(other) == 3 else _NEAR)
        if len(other) > 2 and (near or other in words):
            return wanted
    return None


def _is_numbered(columns: Sequence[str], body: Sequence[_Line]) -> bool:
    """Whether the first column is an unnamed row index, as data frames write it."""
    return not columns[0] and bool(body) and all(line.cells[0].isdecimal() for line in body)


def _read_rows(
    lines: Iterable[_Line], columns: Sequence[str], separator: str, problems: list[str]
) -> Iterator[TableRow]:
    for line in lines:
        extra = [
            cell for at, cell in enumerate(line.cells)
            if cell and (at >= len(columns) or not columns[at])
        ]  # fmt: skip
        if extra:
            mark = "a tab" if separator == "\t" else f"{separator!r}"
            problems.append(
                f"line {line.number}: has {len(line.cells)} cells for {len(columns)} columns "
                f"({extra[0]!r} is under none); put quotes around a value that holds {mark}"
            )
            continue
        cells = [*line.cells, *[""] * (len(columns) - len(line.cells))]
        named = zip(columns, cells, strict=False)
        yield TableRow(line.number, {name: cell for name, cell in named if name})


def _shorten(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - _MAX_LISTED
    return ", ".join(listed[:_MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
