"""report.html: one page of a run that needs nothing but the pictures beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from wsiseg.annotations import choose_colors

__all__ = ["render_report"]

Row = Mapping[str, object]

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")


def render_report(root: Path, summary_rows: Sequence[Row], measurement_rows: Sequence[Row]) -> str:
    """The page as HTML; pictures and polygons that exist below `root` are linked relatively."""
    colors = _choose_colors(measurement_rows)
    by_slide: dict[str, list[Row]] = {}
    for row in measurement_rows:
        by_slide.setdefault(str(row.get("slide", "")), []).append(row)
    bodies = [
        _render_slide(root, row, by_slide.get(str(row.get("slide", "")), []), colors)
        for row in summary_rows
    ]
    return _PAGE.format(
        style=_STYLE,
        totals=_render_totals(summary_rows, measurement_rows),
        whole=_render_whole(summary_rows, measurement_rows, colors),
        slides="\n".join(bodies) or '<p class="pale">No slides yet.</p>',
    )


def _choose_colors(measurement_rows: Sequence[Row]) -> dict[str, str]:
    """CSS colours by class: that of its first row that has one, else one of its own."""
    classes = list(dict.fromkeys(str(row.get("class", "")) for row in measurement_rows))
    chosen = {
        name: "rgb({},{},{})".format(*color)
        for name, color in zip(classes, choose_colors(classes), strict=True)
    }
    return chosen | _read_colors(measurement_rows)


def _read_colors(measurement_rows: Sequence[Row]) -> dict[str, str]:
    """The checkpoints' colours, as far as the rows, which may come from a table, hold them."""
    found: dict[str, str] = {}
    for row in measurement_rows:
        color = str(row.get("color", ""))
        if _COLOR.fullmatch(color):
            found.setdefault(str(row.get("class", "")), color)
    return found


def _render_totals(summary_rows: Sequence[Row], measurement_rows: Sequence[Row]) -> str:
    counts: dict[str, int] = {}
    for row in summary_rows:
        counts[str(row.get("status", ""))] = counts.get(str(row.get("status", "")), 0) + 1
    figures = [("slides", f"{len(summary_rows)}")]
    figures += [(status, f"{count}") for status, count in sorted(counts.items())]
    figures += [
        ("tissue", f"{sum(_number(row, 'tissue_mm2') for row in summary_rows):,.1f} mm²"),
        ("regions", f"{sum(_number(row, 'n_regions') for row in measurement_rows):,.0f}"),
        ("time", _duration(sum(_number(row, "seconds") for row in summary_rows))),
    ]
    cards = [f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>"
             for name, value in figures]  # fmt: skip
    return "".join(cards)


def _render_whole(
    summary_rows: Sequence[Row],
    measurement_rows: Sequence[Row],
    colors: Mapping[str, str],
) -> str:
    areas = dict.fromkeys(colors, 0.0)
    for row in measurement_rows:
        areas[str(row.get("class", ""))] += _number(row, "area_mm2")
    tissue = sum(_number(row, "tissue_mm2") for row in summary_rows)
    return _render_bar(areas, tissue, colors) if sum(areas.values()) > 0 else ""


def _render_slide(root: Path, row: Row, measured: Sequence[Row], colors: Mapping[str, str]) -> str:
    name, status = str(row.get("slide", "")), str(row.get("status", ""))
    areas = {str(one.get("class", "")): _number(one, "area_mm2") for one in measured}
    colors = {**colors, **_read_colors(measured)}
    error, note = str(row.get("error") or ""), str(row.get("note") or "")
    parts = [
        f'<h2>{escape(name)} <span class="status {_status_class(status)}">{escape(status)}</span>'
        f"</h2>",
        f'<p class="pale path">{escape(str(row.get("path", "")))}</p>',
        f'<p class="error">{escape(error)}</p>' if error else "",
        f'<p class="note">{escape(note)}</p>' if note else "",
        _render_facts(row),
        _render_bar(areas, _number(row, "tissue_mm2"), colors) if sum(areas.values()) > 0 else "",
        _render_table(measured) if sum(areas.values()) > 0 else "",
        _render_links(root, name),
    ]
    return (
        f'<article>{_render_picture(root, name)}<div class="text">{"".join(parts)}</div></article>'
    )


def _render_facts(row: Row) -> str:
    mpp = _number(row, "mpp")
    facts = {
        "tissue": f"{_number(row, 'tissue_mm2'):,.2f} mm²" if row.get("tiles") else "",
        "µm/px": f"{mpp:g} ({row.get('mpp_source') or 'unknown'})" if mpp else "",
        "tiles": f"{_number(row, 'tiles'):,.0f}" if _number(row, "tiles") else "",
        "damaged tiles": f"{_number(row, 'damaged_tiles'):,.0f}"
        if _number(row, "damaged_tiles")
        else "",
        "time": _duration(_number(row, "seconds")),
    }
    shown = [f"<span>{escape(name)} <b>{escape(value)}</b></span>"
             for name, value in facts.items() if value]  # fmt: skip
    return f'<p class="facts">{"".join(shown)}</p>'


def _render_bar(areas: Mapping[str, float], tissue: float, colors: Mapping[str, str]) -> str:
    """A bar of each class's share of the tissue, and the figures below it; the rest stays empty."""
    whole = max(tissue, sum(areas.values()))
    pieces, legend = [], []
    for name, area in areas.items():
        share = area / whole
        color = colors.get(name, "gray")
        title = f"{escape(name)}: {area:,.2f} mm², {share:.1%} of the tissue"
        if area > 0:
            pieces.append(f'<i style="flex:{share:.5f};background:{color}" title="{title}"></i>')
        legend.append(
            f'<li><i style="background:{color}"></i>{escape(name)} <b>{area:,.2f} mm²</b> '
            f'<span class="pale">{share:.1%}</span></li>'
        )
    return f'<div class="bar">{"".join(pieces)}</div><ul class="legend">{"".join(legend)}</ul>'


def _render_table(measured: Sequence[Row]) -> str:
    """What `measurements.csv` says of one slide, for those who fold it open."""
    heads = "".join(
        f'<th title="{title}">{name}</th>'
        for name, title in (
            ("class", ""),
            ("mm²", ""),
            ("of tissue", ""),
            ("regions", ""),
            ("perimeter mm", "corrected for the staircase of pixels (Crofton)"),
            ("along pixels mm", "length of the outlines as they are drawn"),
            ("confidence", "mean, weighted by area"),
        )
    )
    rows = "".join(
        f"<tr><td>{escape(str(row.get('class', '')))}</td>"
        f"<td>{_number(row, 'area_mm2'):,.3f}</td>"
        f"<td>{_number(row, 'fraction_of_tissue'):.1%}</td>"
        f"<td>{_number(row, 'n_regions'):,.0f}</td>"
        f"<td>{_number(row, 'crofton_um') / 1000:,.1f}</td>"
        f"<td>{_number(row, 'perimeter_um') / 1000:,.1f}</td>"
        f"<td>{_number(row, 'mean_confidence'):.2f}</td></tr>"
        for row in measured
    )
    return (
        f"<details><summary>measurements</summary><table><tr>{heads}</tr>{rows}</table></details>"
    )


def _render_picture(root: Path, name: str) -> str:
    if not (root / "overlays" / f"{name}.jpg").is_file():
        return '<div class="picture none">no picture</div>'
    link = quote(f"overlays/{name}.jpg", errors="surrogateescape")
    return (
        f'<a class="picture" href="{link}"><img src="{link}" loading="lazy" '
        f'alt="overlay of {escape(name)}"></a>'
    )


def _render_links(root: Path, name: str) -> str:
    links = [
        f'<a href="{quote(file, errors="surrogateescape")}">{escape(text)}</a>'
        for file, text in (
            (f"geojson/{name}.geojson", "polygons"),
            (f"geojson/{name}.geojson.gz", "polygons (gz)"),
            (f"ome-tiff/{name}.ome.tiff", "OME-TIFF"),
            (f"parquet/{name}.parquet", "GeoParquet"),
            (f"png/{name}.png", "classes as PNG"),
            (f"masks/{name}", "masks"),
            (f"coco/{name}", "COCO"),
            (f"geojson/{name}.parts", "polygons (parts)"),
            (f"tissue/{name}.geojson", "tissue outline"),
        )
        if (root / file).exists()
    ]
    return f'<p class="links">{" ".join(links)}</p>' if links else ""


def _status_class(status: str) -> str:
    return {"done": "good", "no tissue": "odd", "failed": "bad"}.get(status, "plain")


def _number(row: Row, key: str) -> float:
    """A figure of a row, which may come from a CSV; 0 where there is none."""
    try:
        return float(str(row.get(key)))
    except ValueError:
        return 0.0


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>wsiseg report</title>
<style>{style}</style>
</head>
<body>
<header><h1>wsiseg report</h1><div class="totals">{totals}</div>{whole}</header>
<main>
{slides}
</main>
</body>
</html>
"""

_STYLE = """
:root{--ink:#20242a;--pale:#6b727b;--line:#dde1e5;--page:#f4f5f7;--card:#fff;
color-scheme:light dark}
@media(prefers-color-scheme:dark){
:root{--ink:#e8eaed;--pale:#9aa1aa;--line:#363b42;--page:#17191c;--card:#202327}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,"Segoe UI",Roboto,Helvetica,Arial,sans-serif}
header,main{max-width:1080px;margin:0 auto;padding:24px 20px 0}
h1{font-size:26px;margin:0 0 14px}
h2{font-size:18px;margin:0;overflow-wrap:anywhere}
p{margin:4px 0}
b{font-weight:600;font-variant-numeric:tabular-nums}
.pale{color:var(--pale)}
.totals{display:flex;flex-wrap:wrap;gap:10px;margin-bottom:16px}
.totals div{background:var(--card);border:1px solid var(--line);border-radius:8px;
padding:8px 16px;min-width:96px}
.totals b{display:block;font-size:20px}
.totals span{color:var(--pale);font-size:13px}
article{display:flex;gap:20px;background:var(--card);border:1px solid var(--line);
border-radius:10px;padding:16px;margin-bottom:16px}
.picture{flex:0 0 280px;display:flex;align-items:center;justify-content:center;
background:#fff;border:1px solid var(--line);border-radius:6px;overflow:hidden;min-height:90px}
.picture img{width:100%;max-height:260px;object-fit:contain;display:block}
.picture.none{background:var(--page);color:var(--pale);font-size:13px}
.text{flex:1;min-width:0}
.path{font-size:13px;overflow-wrap:anywhere}
.facts{display:flex;flex-wrap:wrap;gap:4px 20px;color:var(--pale);font-size:14px}
.facts b{color:var(--ink)}
.status{font-size:12px;font-weight:600;border-radius:99px;padding:2px 10px;margin-left:6px;
vertical-align:2px;color:#fff;background:#6b727b;white-space:nowrap}
.good{background:#1a7f4b}.odd{background:#9a6700}.bad{background:#c62828}
.note{background:rgba(230,159,0,.12);border-left:3px solid #e69f00;padding:.5rem .7rem}
.error{color:#c62828;background:rgba(198,40,40,.08);border-left:3px solid #c62828;
padding:6px 10px;overflow-wrap:anywhere}
.bar{display:flex;height:16px;border-radius:4px;overflow:hidden;margin:10px 0 6px;
background:var(--line)}
.legend{list-style:none;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:2px 22px;font-size:14px}
.legend i{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:7px}
summary{cursor:pointer;color:var(--pale);font-size:14px;margin-top:8px}
table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums}
th,td{padding:3px 12px 3px 0;text-align:right;font-weight:400}
th{color:var(--pale);border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left}
.links{margin-top:8px;font-size:14px}.links a{margin-right:14px}
@media(max-width:720px){article{flex-direction:column}.picture{flex-basis:auto}}
"""
