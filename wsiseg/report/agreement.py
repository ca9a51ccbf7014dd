"""How far the maps agreed with what somebody labelled, when that was last scored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsiseg.report.pictures import FACTS

__all__ = ["AGREEMENT", "describe_agreement"]

AGREEMENT = "report/agreement.json"
"""Below an output folder: what `wsiseg evaluate --slides` found, as its ``slides.json``."""


def describe_agreement(root: Path) -> dict[str, Any] | None:
    """The table as the page shows it; None if the maps were not scored.

    A slide that was mapped anew since is named: its score is of the map before.
    """
    try:
        found = json.loads((root / AGREEMENT).read_bytes())
        return {
            "classes": [_format_class(one) for one in found["classes"]],
            "summary": (
                f"Mean IoU {_percent(found['miou'])} ({_span(found['miou_interval'])}), mean Dice "
                f"{_percent(found['mdice'])}; {found['guess']} all over would have "
                f"{_percent(found['guess_miou'])}."
            ),
            "slides": [
                (one["name"], _percent(one["miou"]), f"{one['mm2']:,.3f}")
                for one in found["slides"]
            ],
            "notes": found["notes"],
            "former": [one["name"] for one in found["slides"] if _is_former(root, one)],
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_former(root: Path, scored: Mapping[str, Any]) -> bool:
    """Whether the map that the page shows is another than the one that was scored."""
    try:
        facts = json.loads((root / "report" / f"{scored['name']}.files" / FACTS).read_bytes())
        return bool(facts["steps"]["stitch"] != scored["made"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _format_class(one: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        one["name"], _percent(one["iou"]), _span(one["iou_interval"]), _percent(one["dice"]),
        _percent(one["area_error"]), _percent(one["labelled"]),
    )  # fmt: skip


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _span(ends: tuple[float | None, float | None]) -> str:
    return " to ".join(map(_percent, ends))
