"""Contents of the pages, for each slide and in total, from the rows of the tables."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import quote

from wsiseg.annotations import choose_colors
from wsiseg.report.colors import choose_safe_colors, to_hex

__all__ = [
    "ClassColors",
    "Row",
    "choose_class_colors",
    "describe_slide",
    "describe_tissue",
    "describe_totals",
    "group_rows",
    "share_classes",
]

Row = Mapping[str, object]


class ClassColors(NamedTuple):
    """CSS colours by class, in the order of the classes."""

    own: dict[str, str]
    """The checkpoint's colours."""
    safe: dict[str, str]
    """Colours that are safe for colour-blind readers."""


_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_LOOKS = {"done": "good", "no tissue": "odd", "failed": "bad"}
_RANKS = {"failed": 0, "no tissue": 1, "done": 3}
_NOTED = 2
_LEAST_REST = 0.001
"""Share of the tissue without a class that is told."""
_ADVICE = {
    "failed": "fix the problem that the message names, and run the same command again: finished "
    "work is kept, and only the rest is done.",
    "no tissue": "if the slide has tissue, outline it in QuPath, save that as "
    "tissue/{name}.geojson, and run the same command again; pale tissue may need a lower "
    "tissue.min_density.",
}
_EARLIER = (
    "This run failed: the pictures and files here were made before, by an earlier run or until it "
    "failed."
)
_LINKS = (
    ("geojson/{}.geojson", "polygons"),
    ("geojson/{}.geojson.gz", "polygons (gz)"),
    ("ome-tiff/{}.ome.tiff", "OME-TIFF"),
    ("parquet/{}.parquet", "GeoParquet"),
    ("png/{}.png", "classes as PNG"),
    ("masks/{}", "masks"),
    ("coco/{}", "COCO"),
    ("geojson/{}.parts", "polygons (parts)"),
    ("tissue/{}.geojson", "tissue outline"),
    ("overlays/{}.jpg", "picture"),
)


def group_rows(measurement_rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Group rows by slide."""
    grouped: dict[str, list[Row]] = {}
    for row in measurement_rows:
        grouped.setdefault(str(row.get("slide", "")), []).append(row)
    return grouped


def describe_slide(
    root: Path, row: Row, measured: Sequence[Row], colors: ClassColors, outdated: Collection[str]
) -> dict[str, Any]:
    """Return what a page shows of a slide; `measured` are the slide's own measurements.

    Files below `root` that are `outdated` are not linked.
    """
    name, status = str(row.get("slide", "")), str(row.get("status", ""))
    note = str(row.get("note") or "")
    shares = share_classes([row], measured, colors)
    areas = {share["name"]: share["area"] for share in shares}
    drawn = _is_plain(name) and (root / "report" / f"{name}.files" / "thumbnail.jpg").is_file()
    has_page = drawn or (_is_plain(name) and bool(measured))
    files = _link(f"report/{name}.files") if drawn else ""
    overlay, links = _find_overlay(root, name), _find_files(root, name, outdated)
    earlier = _EARLIER if status == "failed" and (files or overlay or links) else ""
    state = "done, with a note" if status == "done" and note else status
    return {
        "name": name,
        "path": str(row.get("path", "")),
        "status": status,
        "look": _LOOKS.get(status, "plain"),
        "state": state,
        "rank": _NOTED if state != status else _RANKS.get(status, 4),
        "error": str(row.get("error") or ""),
        "advice": _ADVICE.get(status, "").format(name=name),
        "notes": [text for text in (note, earlier) if text],
        "facts": _list_facts(row, sum(areas.values()) if measured else math.inf),
        "shares": shares if sum(areas.values()) > 0 else [],
        "measured": [_format_measured(each) for each in measured],
        "tissue": _number(row, "tissue_mm2"),
        "seconds": _number(row, "seconds"),
        "peak_mb": _number(row, "peak_mb"),
        "confidence": _mean_confidence(measured),
        "areas": " ".join(f"{areas.get(each, 0):.6g}" for each in colors.own),
        "files": files,
        "page": _link(f"report/{name}.html") if has_page else "",
        "overlay": overlay,
        "links": links,
    }


def describe_tissue(tissue_mm2: float, classed_mm2: float) -> str:
    """Describe the area of the tissue, and how much of it has no class; empty without tissue."""
    if tissue_mm2 <= 0:
        return ""
    rest = 1 - classed_mm2 / tissue_mm2
    without = f", {100 * rest:.1f} % of it without a class" if rest >= _LEAST_REST else ""
    return f"{tissue_mm2:,.2f} mm²{without}"


def describe_totals(
    summary_rows: Sequence[Row], measurement_rows: Sequence[Row]
) -> list[tuple[str, str]]:
    """Return figures of the whole run, as name and value."""
    counts: dict[str, int] = {}
    for row in summary_rows:
        counts[str(row.get("status", ""))] = counts.get(str(row.get("status", "")), 0) + 1
    return [
        ("slides", f"{len(summary_rows)}"),
        *((status, f"{count}") for status, count in sorted(counts.items())),
        ("tissue", f"{sum(_number(row, 'tissue_mm2') for row in summary_rows):,.1f} mm²"),
        ("regions", f"{sum(_number(row, 'n_regions') for row in measurement_rows):,.0f}"),
        ("time of the last run", _duration(sum(_number(row, "seconds") for row in summary_rows))),
    ]


def choose_class_colors(measurement_rows: Sequence[Row]) -> ClassColors:
    """Return the checkpoints' colours from the rows, and choose one for classes without."""
    names = tuple(dict.fromkeys(str(row.get("class", "")) for row in measurement_rows))
    own, safe = (
        dict(zip(names, map(to_hex, choose(names)), strict=True))
        for choose in (choose_colors, choose_safe_colors)
    )
    return ClassColors(own | _read_colors(measurement_rows), safe)


def share_classes(
    summary_rows: Sequence[Row], measured: Sequence[Row], colors: ClassColors
) -> list[dict[str, Any]]:
    """Return name, area (mm²), share of the tissue, and both CSS colours of each class.

    Empty if no class has an area.
    """
    areas: dict[str, float] = {}
    for row in measured:
        name = str(row.get("class", ""))
        areas[name] = areas.get(name, 0.0) + _number(row, "area_mm2")
    if sum(areas.values()) <= 0:
        return []
    whole = max(sum(_number(row, "tissue_mm2") for row in summary_rows), sum(areas.values()))
    own = colors.own | _read_colors(measured)
    return [
        {
            "name": name, "area": area, "share": area / whole, "color": own[name],
            "safe": colors.safe[name],
        }
        for name, area in areas.items()
    ]  # fmt: skip


def _read_colors(rows: Sequence[Row]) -> dict[str, str]:
    """Return the checkpoints' colours in the rows; rows from a table may have invalid ones."""
    colors: dict[str, str] = {}
    for row in rows:
        color = str(row.get("color", ""))
        if _COLOR.fullmatch(color):
            colors.setdefault(str(row.get("class", "")), color)
    return colors


def _list_facts(row: Row, classed_mm2: float) -> list[tuple[str, str]]:
    mpp, damaged = _number(row, "mpp"), _number(row, "damaged_tiles")
    facts = {
        "tissue": describe_tissue(_number(row, "tissue_mm2"), classed_mm2),
        "µm/px": f"{mpp:g} ({row.get('mpp_source') or 'unknown'})" if mpp else "",
        "tiles": f"{_number(row, 'tiles'):,.0f}" if _number(row, "tiles") else "",
        "damaged tiles": f"{damaged:,.0f}" if damaged else "",
        "time of the last run": _duration(_number(row, "seconds")),
    }
    return [(name, value) for name, value in facts.items() if value]


def _format_measured(row: Row) -> tuple[str, ...]:
    confidence = row.get("mean_confidence")
    return (
        str(row.get("class", "")),
        f"{_number(row, 'area_mm2'):,.3f}",
        f"{_number(row, 'fraction_of_tissue'):.1%}",
        f"{_number(row, 'n_regions'):,.0f}",
        f"{_number(row, 'crofton_um') / 1000:,.1f}",
        f"{_number(row, 'perimeter_um') / 1000:,.1f}",
        "" if confidence in (None, "") else f"{_number(row, 'mean_confidence'):.2f}",
    )


def _mean_confidence(measured: Sequence[Row]) -> str:
    """Return the mean weighted by area; empty if nothing was measured."""
    areas = [_number(row, "area_mm2") for row in measured]
    if sum(areas) <= 0:
        return ""
    pairs = zip(areas, measured, strict=True)
    return f"{sum(a * _number(row, 'mean_confidence') for a, row in pairs) / sum(areas):.4f}"


def _find_overlay(root: Path, name: str) -> str:
    path = f"overlays/{name}.jpg"
    return _link(path) if (root / path).is_file() else ""


def _find_files(root: Path, name: str, outdated: Collection[str]) -> list[tuple[str, str]]:
    """Return link and text of the files of a slide that exist and are not outdated."""
    places = ((place.format(name), text) for place, text in _LINKS)
    return [
        (_link(path), text)
        for path, text in places
        if path not in outdated and (root / path).exists()
    ]


def _is_plain(name: str) -> bool:
    """Whether a slide's name, perhaps from a table, is a path that stays below a folder."""
    parts = PurePosixPath(name)
    return bool(name) and not parts.is_absolute() and ".." not in parts.parts


def _link(path: str) -> str:
    return quote(path, errors="surrogateescape")


def _number(row: Row, key: str) -> float:
    """Return a number of a row, perhaps from a CSV; 0 if it is missing."""
    try:
        return float(str(row.get(key)))
    except ValueError:
        return 0.0


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
