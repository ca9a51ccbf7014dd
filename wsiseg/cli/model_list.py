"""The catalogue of named models as a table, a page and JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wsiseg.model.catalog import CATALOG, NamedModel

__all__ = ["describe_catalog", "describe_row", "print_catalog", "print_row"]


def describe_catalog() -> list[dict[str, Any]]:
    """Return all rows as plain values."""
    return [describe_row(row) for row in CATALOG]


def describe_row(row: NamedModel) -> dict[str, Any]:
    """Return a row as plain values; a model that ships has its size and path."""
    path = row.path
    size = None if path is None or not path.is_file() else path.stat().st_size
    return {
        **asdict(row),
        "ships": path is not None,
        "file": "" if path is None else str(path),
        "megabytes": row.megabytes if size is None else round(size / 1e6, 3),
    }


def print_catalog(console: Console) -> None:
    """Print a table for 100 columns, and below it commands to copy, without line breaks."""
    names = ("name", "kind", "what it is", "licence", "gate", "px", "µm/px", "size")
    table = Table(*names, box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.columns[3].max_width = 15
    for column in table.columns:
        column.no_wrap = column.header not in ("what it is", "licence")
    for row in CATALOG:
        gate = "ships" if row.path is not None else "terms" if row.gate else "none"
        sides = [f"{value or ''}" for value in (row.image_size, row.mpp)]
        cells = (row.name, row.kind, row.summary, row.licence or "unknown", gate, *sides)
        table.add_row(*map(escape, cells), _size(row))
    console.print(table)
    console.print("To fetch models that do not ship (`wsiseg model show NAME` for details):")
    for row in CATALOG:
        if row.fetch:
            _print_line(console, f"  {row.fetch}")


def print_row(console: Console, row: NamedModel) -> None:
    """Print what is known about a model that does not ship."""
    facts = {
        "kind": row.kind,
        "licence": row.licence or "unknown",
        "terms": row.terms or "those of the licence",
        "gate": row.gate or "none",
        "images": _describe_images(row),
        "size": _size(row),
        "fetch": row.fetch,
        "settings": row.use,
        "page": row.page,
    }
    _print_line(console, f"{row.name}: {row.summary}")
    for name, value in facts.items():
        _print_line(console, f"  {name:<9} {value}")


def _describe_images(row: NamedModel) -> str:
    side = "of any size" if row.image_size is None else f"{row.image_size} px a side"
    return side if row.mpp is None else f"{side}, {row.mpp} µm/px"


def _size(row: NamedModel) -> str:
    megabytes = describe_row(row)["megabytes"]
    if megabytes is None:
        return "missing"
    return f"{megabytes:.2f} MB" if megabytes < 1 else f"{megabytes:.0f} MB"


def _print_line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
