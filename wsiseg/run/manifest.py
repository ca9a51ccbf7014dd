"""Manifests: tables of slides, with the µm/px of those whose files lack it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from wsiseg.errors import ConfigError, DataError
from wsiseg.table import list_problems, read_table, to_number

__all__ = ["MANIFEST_SUFFIXES", "Entry", "read_manifest"]

MANIFEST_SUFFIXES = frozenset({".csv", ".tsv", ".txt"})
"""Suffixes, in lower case, of inputs that are read as manifests."""


class Entry(NamedTuple):
    """One row."""

    slide: Path
    mpp: float | None
    """µm/px of level 0; None to use the slide's own."""
    where: str
    """File and line, for error messages."""


def read_manifest(path: Path) -> list[Entry]:
    """Read a table with the column ``slide`` (relative to the table) and optionally ``mpp``.

    Raises
    ------
    ConfigError
        If it is not a table, has no rows, or any row lacks its slide or has an `mpp` that is not a
        number above 0; the message lists these rows.
    """
    try:
        table = read_table(path, known=("slide", "mpp"), required=("slide",))
    except DataError as error:
        raise ConfigError(str(error)) from error
    problems = list(table.problems)
    entries = []
    for row in table.rows:
        text = row.cells.get("mpp", "")
        mpp = to_number(text, table.separator) if text else None
        if not row["slide"]:
            problems.append(f"{row.where} has no slide")
        elif mpp is not None and (math.isnan(mpp) or mpp <= 0):
            problems.append(f"{row.where}: mpp {text!r} is no number above 0 (µm/px, as 0.25)")
        else:
            entries.append(Entry(path.parent / row["slide"], mpp, f"{path}, {row.where}"))
    if problems:
        raise ConfigError(
            f"{path}: {len(problems):,} problem(s) with the manifest{list_problems(problems)}"
        )
    if not entries:
        raise ConfigError(f"{path}: holds no slide; each line after the first names one")
    return entries
