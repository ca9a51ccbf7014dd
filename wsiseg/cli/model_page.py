"""The contents of a checkpoint and its card as a page and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.color import Color
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from wsiseg.model.card import Calibration, Card, DataSource, Score
from wsiseg.model.catalog import CATALOG
from wsiseg.model.checkpoint import CheckpointInfo

__all__ = ["describe_checkpoint", "print_page"]

_UNKNOWN = "unknown"
_KINDS = {
    "construct": "ConStruct on a frozen encoder, trained on patch labels",
    "segmenter": "segmentation network, trained on the labels of a first stage",
}
_PART = {"construct": "encoder", "segmenter": "network"}
_SETTINGS = ("epochs", "batch_size", "learning_rate", "precision", "seed")


def describe_checkpoint(path: Path, info: CheckpointInfo) -> dict[str, Any]:
    """Return everything as plain values; the card is None if there is none."""
    plain = asdict(info)
    del plain["card"]
    card = None if info.card is None else info.card.model_dump(mode="json")
    return {"file": str(path), "checkpoint": plain, "card": card}


def print_page(console: Console, path: Path, info: CheckpointInfo) -> None:
    """Print the page section by section; missing information is shown as unknown."""
    card = info.card or Card()
    console.print(Text(card.title or path.name, style="bold"))
    for text in filter(None, (card.summary, info.note)):
        console.print(Text(text))
    if info.card is None:
        console.print(Text("This file has no card: the rest comes from its checkpoint."))
    _print_section(console, "Classes", [_list_classes(info, card)])
    _print_section(console, "Model", [_list_facts(_describe_model(path, info, card))])
    if info.card is not None:
        for heading, parts in _list_sections(card, info.names):
            _print_section(console, heading, parts)


def _list_sections(card: Card, names: Sequence[str]) -> list[tuple[str, list[RenderableType]]]:
    unknown: list[RenderableType] = [Text(_UNKNOWN)]
    calibration = unknown if card.calibration is None else _list_calibration(card.calibration)
    return [
        ("Data", [_list_facts(_describe_data(part)) for part in card.data] or unknown),
        ("Labels", [Text(card.labels or _UNKNOWN)]),
        ("Scores", [part for score in card.scores for part in _list_score(score, names)]
            or [Text("none were measured")]),
        ("Calibration", calibration),
        ("Limits", _list_points(card.limits) or unknown),
        ("Intended use", [Text(card.intended_use or _UNKNOWN)]),
        ("References", _list_points(card.references) or [Text("none")]),
    ]  # fmt: skip


def _print_section(console: Console, heading: str, parts: Iterable[RenderableType]) -> None:
    console.print(Text(f"\n{heading}", style="bold"))
    for part in parts:
        console.print(Padding(part, (0, 0, 0, 2), expand=False))


def _list_facts(facts: Mapping[str, object]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, Text(str(value)))
    return table


def _list_points(points: Iterable[str]) -> list[RenderableType]:
    return [_list_facts({"-": point}) for point in points]


def _list_classes(info: CheckpointInfo, card: Card) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, color in zip(info.names, info.colors, strict=True):
        swatch = Text("██", style=Style(color=Color.from_rgb(*color)))
        code = "#{:02x}{:02x}{:02x}".format(*color)
        meaning = card.classes.get(name, _UNKNOWN if card.classes else "")
        table.add_row(swatch, code, Text(name), Text(meaning))
    return table


def _describe_model(path: Path, info: CheckpointInfo, card: Card) -> dict[str, object]:
    shipped = next((row.licence for row in CATALOG if row.path == path), "")
    usable = _UNKNOWN if card.mpp_range is None else "{:g} to {:g}".format(*card.mpp_range)
    facts: dict[str, object] = {
        "file": path,
        "sha256": info.sha256,
        "licence": card.licence or shipped or _UNKNOWN,
        "scale": f"trained at {info.mpp:g} µm/px; may be used at: {usable}",
        "tile": f"{info.tile} x {info.tile} px",
        "kind": _KINDS[info.kind],
        _PART[info.kind]: f"{info.encoder}, {info.identity or 'from random weights'}",
    }
    for part, weights in info.weights.items():
        facts[f"{part} from"] = f"{weights['source']}, revision {weights['revision'] or 'none'}"
        facts[f"{part} sha256"] = weights["sha256"]
    settings = [f"{name} {info.config[name]}" for name in _SETTINGS if name in info.config]
    if info.kind == "construct":
        settings = [f"preset {info.preset}", *settings]
        facts["prototypes"] = f"{info.prototypes_per_class} per class"
        facts["pooling"] = f"{info.pooling} of the CAM"
    for name, value in info.first_stage.items():
        facts[f"first stage, {name}"] = value
    facts["training"] = ", ".join(settings)
    if info.background:
        facts["background"] = ", ".join(info.names[-info.background :]) + ": not shown in maps"
    facts["confidence"] = "calibrated" if info.calibration else "as trained, not calibrated"
    return facts


def _describe_data(data: DataSource) -> dict[str, object]:
    counts = {"slides": data.slides, "patches": data.patches}
    if data.slides is None and data.patches is None:
        counts = {}  # of slides and patches there are none: photographs, say
    facts: dict[str, object] = {
        "name": data.name,
        "licence": data.licence or _UNKNOWN,
        "attribution": data.attribution or _UNKNOWN,
        "source": data.source,
        "doi": data.doi,
        **{name: _UNKNOWN if count is None else f"{count:,}" for name, count in counts.items()},
        "identity": data.identity,
    }
    return {name: value for name, value in facts.items() if value}


def _list_score(score: Score, names: Sequence[str]) -> list[RenderableType]:
    interval = "" if score.low is None else f" [{score.low:.3f}, {score.high:.3f}]"
    line = f"{score.protocol}: {score.metric} {score.value:.3f}{interval} over {score.over}"
    parts: list[RenderableType] = [Text(line)]
    if score.note:
        parts.append(Padding(Text(score.note), (0, 0, 0, 2)))
    order = [name for name in (*names, *score.by_class) if name in score.by_class]
    by_class = {name: score.by_class[name] for name in order}  # JSON loses the labels' order
    tables: list[tuple[str, Mapping[str, float | None]]]
    tables = [("by class", by_class), ("by slide", score.by_slide)]
    for heading, figures in tables:
        if figures:
            parts.append(Padding(Text(heading), (0, 0, 0, 2)))
            shown = {name: _show_figure(value) for name, value in figures.items()}
            parts.append(Padding(_list_facts(shown), (0, 0, 0, 4)))
    return parts


def _show_figure(value: float | None) -> str:
    return "does not occur" if value is None else f"{value:.3f}"


def _list_calibration(calibration: Calibration) -> list[RenderableType]:
    ece = _UNKNOWN if calibration.ece is None else f"{calibration.ece:.3f}"
    facts = {
        "method": calibration.method,
        "fitted on": calibration.fitted_on or _UNKNOWN,
        "expected calibration error": ece,
    }
    parts: list[RenderableType] = [_list_facts(facts)]
    if calibration.bins:
        table = Table(box=None)
        for heading in ("confidence", "accuracy", "cases"):
            table.add_column(heading, justify="right")
        for confidence, accuracy, count in calibration.bins:
            table.add_row(f"{confidence:.3f}", f"{accuracy:.3f}", f"{count:,}")
        parts.append(table)
    return parts
