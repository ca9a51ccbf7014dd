"""The agreement of the maps with labels, as last scored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsiseg.report.pictures import FACTS

__all__ = ["AGREEMENT", "describe_agreement"]

AGREEMENT = "report/agreement.json"
"""Path in an output folder: the scores of `wsiseg evaluate --slides`, as in its ``slides.json``."""


def describe_agreement(root: Path) -> dict[str, Any] | None:
    """Return the scores as the page shows them; None if the maps were not scored.

    ``former`` lists slides that were mapped again since: their scores describe the earlier map.
    """
    try:
        scores = json.loads((root / AGREEMENT).read_bytes())
        return {
            "classes": [_format_class(row) for row in scores["classes"]],
            "summary": (
                f"{_describe_labels(scores)}Mean IoU {_percent(scores['miou'])} "
                f"({_span(scores['miou_interval'])}), mean Dice {_percent(scores['mdice'])}; "
                f"labelling everything {scores['guess']} would give "
                f"{_percent(scores['guess_miou'])}."
            ),
            "slides": [
                (slide["name"], _percent(slide["miou"]), f"{slide['mm2']:,.3f}")
                for slide in scores["slides"]
            ],
            "notes": scores["notes"],
            "former": [slide["name"] for slide in scores["slides"] if _is_former(root, slide)],
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _describe_labels(scores: Mapping[str, Any]) -> str:
    given = ", ".join(scores.get("labels", ()))  # which scores of an older wsiseg do not say
    return f"Labels: {given}. " if given else ""


def _is_former(root: Path, scored: Mapping[str, Any]) -> bool:
    """Whether the map on the page is not the one that was scored."""
    try:
        facts = json.loads((root / "report" / f"{scored['name']}.files" / FACTS).read_bytes())
        return bool(facts["steps"]["stitch"] != scored["made"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _format_class(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        row["name"], _percent(row["iou"]), _span(row["iou_interval"]), _percent(row["dice"]),
        _percent(row["area_error"]), _percent(row["labelled"]),
    )  # fmt: skip


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _span(ends: tuple[float | None, float | None]) -> str:
    return " to ".join(map(_percent, ends))
