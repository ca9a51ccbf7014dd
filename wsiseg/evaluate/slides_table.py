"""Scores of maps as text, as tables, and as data for report.html."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wsiseg.evaluate.slides import MapScores
from wsiseg.table import format_csv, free_columns
from wsiseg.text import write_text

__all__ = ["describe_slides", "format_slides", "write_slides"]


def describe_slides(result: MapScores) -> dict[str, Any]:
    """Describe the scores as data for JSON; shares from 0 to 1, NaN as None."""
    scores, ends = result.scores, result.intervals
    true = result.confusion.sum(1)
    few = ["fewer than five slides: the intervals are too narrow for new ones"]
    return {
        "classes": [
            {
                "name": name, "iou": _to_json(scores.iou[at]),
                "iou_interval": [*map(_to_json, ends.iou[at])], "dice": _to_json(scores.dice[at]),
                "area_error": _to_json(scores.area_error[at]),
                "labelled": _to_json(true[at] / max(true.sum(), 1)),
            }
            for at, name in enumerate(result.classes)
        ],
        "miou": _to_json(scores.miou), "miou_interval": [*map(_to_json, ends.miou)],
        "mdice": _to_json(scores.mdice), "labels": [*result.labels],
        "guess": result.guessed, "guess_miou": _to_json(result.guess.miou),
        "slides": [
            {
                "name": one.slide, "made": one.made, "miou": _to_json(one.scores.miou),
                "mm2": round(one.labelled_mm2, 6),
            }
            for one in result.slides
        ],
        "notes": [*(few if len(result.slides) < 5 else []), *result.notes],
    }  # fmt: skip


def format_slides(result: MapScores) -> str:
    """Format a plain text table: classes in percent with intervals, then the guess, then slides."""
    plain = describe_slides(result)
    lines = [
        f"{'class':<16}  {'IoU % (interval)':<20}  {'Dice %':<8}  {'area error %':<12}  labelled"
    ]
    for one in plain["classes"]:
        interval = f"{_percent(one['iou'])} ({_span(one['iou_interval'])})"
        lines.append(
            f"{one['name']:<16}  {interval:<20}  {_percent(one['dice']):<8}  "
            f"{_percent(one['area_error']):<12}  {_percent(one['labelled'])} %"
        )
    lines.append(
        f"mean IoU {_percent(plain['miou'])} % ({_span(plain['miou_interval'])} by resampling "
        f"{len(result.slides)} slides), mean Dice {_percent(plain['mdice'])} %"
    )
    lines.append(f"{plain['guess']} all over: mean IoU {_percent(plain['guess_miou'])} %")
    for one in plain["slides"]:
        lines.append(f"{one['name']}: mean IoU {_percent(one['miou'])} % of {one['mm2']:.3g} mm²")
    return "\n".join([*lines, *plain["notes"]])


def write_slides(result: MapScores, out: str | Path) -> list[Path]:
    """Write ``slides.csv`` (one row per slide and class), ``confusion.csv``, ``slides.json``."""
    out = Path(out)
    names = [*free_columns(result.classes, ["background"]), "background"]
    table = [["labelled as", *names]]
    table += [[n, *map(str, row)] for n, row in zip(names, result.confusion.tolist(), strict=True)]
    texts = {
        "slides.csv": format_csv(_rows(result)),
        "confusion.csv": format_csv(table),
        "slides.json": json.dumps(describe_slides(result), indent=1),
    }
    return [write_text(text, out / name) for name, text in texts.items()]


def _rows(result: MapScores) -> list[list[str]]:
    rows = [["slide", "class", "labelled_px", "mapped_px", "iou", "dice", "area_error"]]
    for name, confusion, scores in (
        *((one.slide, one.confusion, one.scores) for one in result.slides),
        ("all", result.confusion, result.scores),
        (f"all as {result.guessed}", None, result.guess),
    ):
        for at, label in enumerate(result.classes):
            counts = ("", "") if confusion is None else (
                str(confusion[at].sum()), str(confusion[:, at].sum()),
            )  # fmt: skip
            values = (scores.iou[at], scores.dice[at], scores.area_error[at])
            rows.append([name, label, *counts, *(_cell(value) for value in values)])
    return rows


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"


def _to_json(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 4)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _span(ends: Sequence[float | None]) -> str:
    low, high = map(_percent, ends)
    return f"{low} to {high}"
