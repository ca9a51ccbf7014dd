"""Render report.html and a page per slide from the tables' rows and `write_pictures`' files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined

from wsiseg.report.agreement import describe_agreement
from wsiseg.report.colors import SCALE, to_hex
from wsiseg.report.histogram import draw_histogram, find_median
from wsiseg.report.pictures import FACTS
from wsiseg.report.rows import (
    Row,
    choose_class_colors,
    describe_slide,
    describe_totals,
    group_rows,
    share_classes,
)

__all__ = ["render_pages"]


def render_pages(
    root: Path, summary_rows: Sequence[Row], measurement_rows: Sequence[Row],
    outdated: Collection[str] = (),
) -> dict[Path, str]:  # fmt: skip
    """Render ``report.html``, and ``report/NAME.html`` of each measured or drawn slide, by path.

    Slide pages that exist and would not change are left out. Links are relative, and only to files
    that exist below `root` and are not `outdated`. Slides that need attention come first: failed
    ones, then those without tissue, then those with a note.
    """
    grouped, colors = group_rows(measurement_rows), choose_class_colors(measurement_rows)
    slides, pages = [], {}
    for row in summary_rows:
        name = str(row.get("slide", ""))
        measured = grouped.get(name, [])
        slide = describe_slide(root, row, measured, colors, outdated)
        slides.append(slide)
        if slide["page"]:
            facts = _read_facts(root, name)
            path = root / "report" / f"{name}.html"
            made = _hash(_sources(), json.dumps([slide, facts], sort_keys=True))
            if made not in _read_head(path):
                pages[path] = _render_slide(slide, facts, made)
    slides.sort(key=lambda slide: slide["rank"])
    page = (
        _templates()
        .get_template("report.html")
        .render(
            made="",
            totals=describe_totals(summary_rows, measurement_rows),
            whole=share_classes(summary_rows, measurement_rows, colors),
            slides=slides,
            agreement=describe_agreement(root),
            states=list(dict.fromkeys(slide["state"] for slide in slides)),
        )
    )
    return {**pages, root / "report.html": page}


def _render_slide(slide: Mapping[str, Any], facts: dict[str, Any] | None, made: str) -> str:
    name = slide["name"]
    bars = draw_histogram(facts["histogram"], facts["classes"]) if facts else []
    median, share = find_median(facts["histogram"]) if bars and facts else (0.0, 0.0)
    return (
        _templates()
        .get_template("slide.html")
        .render(
            made=made,
            slide=slide,
            up="../" * (name.count("/") + 1),
            files=quote(f"{name.rpartition('/')[2]}.files", errors="surrogateescape"),
            address=urlencode({"": name}, errors="surrogateescape")[1:],
            drawn=facts,
            bars=bars,
            median=median,
            half=f"{share:.0%}",
            scale=",".join(map(to_hex, SCALE)),
            origin=_list_origin(facts, slide) if facts else [],
            settings=_format_settings(facts),
        )
    )


def _list_origin(facts: Mapping[str, Any], row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List name and value of what the map was made from and with."""
    slide, raster = facts["slide"], facts["raster"]
    values = {
        "wsiseg": facts.get("version"),
        **{f"model: {name}": value for name, value in facts.get("model", {}).items()},
        "slide: file": slide.get("name"),
        "slide: identity": slide.get("identity"),
        "slide: size": "{:,} x {:,} px".format(*slide["size"]) if "size" in slide else "",
        "slide: µm/px": " x ".join(f"{mpp:g}" for mpp in slide.get("mpp", ())),
        "slide: vendor": slide.get("vendor"),
        "slide: reader": slide.get("reader"),
        "map: size": f"{raster['width']:,} x {raster['height']:,} px, {raster['mpp']:g} µm/px",
        **{f"hash: {step}": digest for step, digest in facts["steps"].items()},
        "last run: time": f"{row['seconds']:.1f} s" if row["seconds"] else "",
        "last run: peak memory": f"{row['peak_mb']:,.0f} MB" if row["peak_mb"] else "",
    }
    return [(name, str(value)) for name, value in values.items() if value]


def _format_settings(facts: Mapping[str, Any] | None) -> str:
    settings = (facts or {}).get("settings")
    return json.dumps(settings, indent=2, ensure_ascii=False) if settings else ""


def _read_facts(root: Path, name: str) -> dict[str, Any] | None:
    """Read the facts from `write_pictures`; None if there are none that can be read."""
    try:
        return dict(json.loads((root / "report" / f"{name}.files" / FACTS).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _read_head(path: Path) -> str:
    """Read the first lines of a page, which hold the hash of its inputs."""
    try:
        with path.open("rb") as file:
            return file.read(400).decode("utf-8", "replace")
    except OSError:
        return ""


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("wsiseg.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True,
    )  # fmt: skip


@cache
def _sources() -> str:
    """Hash the templates and the code that fills them."""
    folder = files("wsiseg.report")
    entries = [*(folder / "templates").iterdir(), *folder.iterdir()]
    sources = sorted((entry.name, entry) for entry in entries if entry.is_file())
    return _hash(*(source.read_text(encoding="utf-8") for _, source in sources))


def _hash(*parts: str) -> str:
    text = "\0".join(parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
