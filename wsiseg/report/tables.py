"""Write summary.csv, measurements.csv and the report's pages, each atomically."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from wsiseg.report.html import render_pages
from wsiseg.table import format_csv
from wsiseg.text import write_text

__all__ = ["write_tables"]

_SUMMARY = ("slide", "path", "status", "mpp", "mpp_source", "tiles", "seconds", "tissue_mm2")
_MEASUREMENTS = (
    "slide", "class", "area_mm2", "fraction_of_tissue", "n_regions", "perimeter_um", "crofton_um",
    "mean_confidence", "color",
)  # fmt: skip

Row = Mapping[str, object]


def write_tables(
    root: str | Path, summary_rows: Sequence[Row], measurement_rows: Sequence[Row],
    outdated: Collection[str] = (),
) -> None:  # fmt: skip
    """Write a run's tables, report.html and a page per slide in `report/` into `root`.

    Summary columns: slide, path, status, mpp, mpp_source, tiles, seconds, tissue_mm2, one
    ``<class>_mm2`` per class (``class tissue_mm2`` for a class `tissue`), any further ones, error.
    Text that a spreadsheet would take for a formula is prefixed with an apostrophe. `outdated`
    files, relative to `root`, are not linked.
    """
    root = Path(root)
    summary = _order(_SUMMARY, summary_rows, last=("error",))
    _write_csv(root / "summary.csv", summary, summary_rows)
    measured = _order(_MEASUREMENTS, measurement_rows)
    _write_csv(root / "measurements.csv", measured, measurement_rows)
    for path, page in render_pages(root, summary_rows, measurement_rows, outdated).items():
        write_text(page, path)


def _order(first: Sequence[str], rows: Iterable[Row], last: Sequence[str] = ()) -> list[str]:
    """Order columns: fixed ones, areas, others in order of appearance, then `last`."""
    names = dict.fromkeys(name for row in rows for name in row)
    others = [name for name in names if name not in first and name not in last]
    areas = [name for name in others if name.endswith("_mm2")]
    return [*first, *areas, *(name for name in others if name not in areas), *last]


def _write_csv(path: Path, columns: list[str], rows: Iterable[Row]) -> None:
    cells = ([_cell(row.get(name)) for name in columns] for row in rows)
    write_text(format_csv([columns, *cells]), path)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.10g}"
    return str(value)
