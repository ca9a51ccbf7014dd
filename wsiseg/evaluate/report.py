"""Report an evaluation: a table to read, and JSON and CSV to compute with."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from wsiseg.atomic import write_picture
from wsiseg.evaluate.bootstrap import Intervals
from wsiseg.evaluate.reliability import Reliability, draw_reliability
from wsiseg.evaluate.run import Evaluation
from wsiseg.evaluate.scores import score
from wsiseg.model.checkpoint import CheckpointInfo
from wsiseg.table import format_csv, free_columns
from wsiseg.text import write_text

__all__ = ["PROTOCOLS", "format_table", "write_report"]

PROTOCOLS = {
    "oracle": "classes let through by the true labels of each patch (the paper's tables)",
    "deploy": "classes let through by the model's own prediction",
    "slide": "classes let through by the model's own prediction on a patch and those around it",
}
"""One line about each protocol, for readers of the numbers."""

Range = tuple[float, float]


def format_table(evaluation: Evaluation) -> str:
    """Format a plain text table in percent, with intervals; its first line names the protocol."""
    scores, ends = evaluation.scores, evaluation.intervals
    rows = [
        (name, iou, dice)
        for name, iou, dice in zip(
            evaluation.palette.names,
            map(_percent, scores.iou, ends.iou),
            map(_percent, scores.dice, ends.dice),
            strict=True,
        )
    ]
    rows.append(("mean", _percent(scores.miou, ends.miou), _percent(scores.mdice, ends.mdice)))
    rows.append(("weighted by frequency", _percent(scores.fwiou, ends.fwiou), ""))
    width = max(len(name) for name, *_ in rows)
    interval = f"{ends.level:.0%} interval"
    lines = [
        f"protocol {evaluation.protocol}: {PROTOCOLS[evaluation.protocol]}",
        f"{len(evaluation.names)} patches; {_how_made(evaluation)}; {interval} by "
        f"{ends.resamples} bootstraps over {_name_units(ends)}",
        f"{'class':<{width}}  {'IoU %':<22}  {'Dice %':<22}".rstrip(),
    ]
    lines += [f"{name:<{width}}  {iou:<22}  {dice:<22}".rstrip() for name, iou, dice in rows]
    absent = [evaluation.palette.names[label] for label in scores.absent]
    if absent:
        lines.append(f"neither true nor predicted, so left out of the means: {', '.join(absent)}")
    if evaluation.reliability is not None:
        lines.append(
            f"confidence, before gates and CRF: expected calibration error "
            f"{evaluation.reliability.ece:.3f} (reliability.png)"
        )
    return "\n".join(lines)


def _how_made(evaluation: Evaluation) -> str:
    if evaluation.predictions is not None:
        return f"masks of {evaluation.predictions}; their maker states the protocol"
    return f"augmentations: {evaluation.config.tta}; CRF: {evaluation.config.crf.backend}"


def _name_units(ends: Intervals) -> str:
    if ends.over_cases:
        return f"{ends.units} cases"
    return "patches, as neither cases.csv nor their names give cases"


def _percent(value: float, ends: Range) -> str:
    if math.isnan(value):
        return "-"
    return f"{100 * value:6.2f} [{100 * ends[0]:.2f}, {100 * ends[1]:.2f}]"


def write_report(
    evaluation: Evaluation, info: CheckpointInfo | None, data: Path, out: str | Path
) -> Path:
    """Write the tables: ``table.txt``, ``scores.json``, and CSVs of what the JSON holds.

    They are ``scores.csv``, ``images.csv``, ``confusion.csv`` and, of the confidence,
    ``reliability.csv`` with its diagram ``reliability.png``.

    Parameters
    ----------
    info
        The checkpoint that was scored; None if there is none, as for masks of another tool.
    data
        The folder of the patches; the last two of its names are recorded.
    out
        The folder to write to, one per protocol.
    """
    out = Path(out)
    text = json.dumps(_describe(evaluation, info, data), indent=2, ensure_ascii=False)
    write_text(text + "\n", out / "scores.json")
    write_text(format_table(evaluation) + "\n", out / "table.txt")
    _write_csv(out / "scores.csv", _score_rows(evaluation))
    _write_csv(out / "images.csv", _image_rows(evaluation))
    names = [*free_columns(evaluation.palette.names, ["background"]), "background"]
    matrix = evaluation.confusion.tolist()
    rows = [[name, *counts] for name, counts in zip(names, matrix, strict=True)]
    _write_csv(out / "confusion.csv", [["true \\ found", *names], *rows])
    if evaluation.reliability is not None:
        _write_csv(out / "reliability.csv", _reliability_rows(evaluation.reliability))
        picture = draw_reliability(evaluation.reliability, evaluation.protocol)
        write_picture(picture, out / "reliability.png")
    return out


def _reliability_rows(reliability: Reliability) -> list[list[object]]:
    """Mean confidence, share of right labels and pixels of each bin that has any."""
    rows: list[list[object]] = [["confidence", "right", "pixels"]]
    for mean, right, count in zip(
        reliability.confidence, reliability.accuracy, reliability.counts, strict=True
    ):
        if count:
            rows.append([_digits(mean), _digits(right), int(count)])
    return rows


def _describe(evaluation: Evaluation, info: CheckpointInfo | None, data: Path) -> dict[str, Any]:
    scores, ends = evaluation.scores, evaluation.intervals
    classes = {
        name: {
            "iou": _plain(scores.iou[label]),
            "iou_interval": [_plain(end) for end in ends.iou[label]],
            "dice": _plain(scores.dice[label]),
            "dice_interval": [_plain(end) for end in ends.dice[label]],
        }
        for label, name in enumerate(evaluation.palette.names)
    }
    means = {
        name: {
            "value": _plain(getattr(scores, name)),
            "interval": [_plain(end) for end in getattr(ends, name)],
        }
        for name in ("miou", "mdice", "fwiou")
    }
    return {
        "protocol": evaluation.protocol,
        "protocol_means": PROTOCOLS[evaluation.protocol],
        **_describe_maker(evaluation, info),
        "data": "/".join(data.parts[-2:]),
        "patches": len(evaluation.names),
        **means,
        "interval": {
            "level": ends.level, "resamples": ends.resamples, "seed": ends.seed,
            "over": "cases" if ends.over_cases else "patches", "units": ends.units,
        },
        "classes": classes,
        "absent": [evaluation.palette.names[label] for label in scores.absent],
        "calibration_error": (
            None if evaluation.reliability is None else _plain(evaluation.reliability.ece)
        ),
        "class_accuracy": _class_accuracy(evaluation),
        "confusion": evaluation.confusion.tolist(),
    }  # fmt: skip


def _describe_maker(evaluation: Evaluation, info: CheckpointInfo | None) -> dict[str, Any]:
    if info is None:
        folder = evaluation.predictions
        return {"predictions": None if folder is None else "/".join(folder.parts[-2:])}
    return {
        "checkpoint": {
            "sha256": info.sha256, "encoder": info.identity, "preset": info.preset,
            "note": info.note,
        },
        "settings": evaluation.config.model_dump(
            mode="json", exclude={"protocols", "device", "encoder_options"}
        ),
    }  # fmt: skip


def _class_accuracy(evaluation: Evaluation) -> dict[str, float] | None:
    """Share of patches where the model is right whether a class is present; None in `oracle`."""
    if evaluation.protocol == "oracle":
        return None
    right = (evaluation.gates == evaluation.true_classes).mean(0)
    return dict(zip(evaluation.palette.names, right.tolist(), strict=True))


def _score_rows(evaluation: Evaluation) -> list[list[object]]:
    scores, ends = evaluation.scores, evaluation.intervals
    rows: list[list[object]] = [["protocol", "score", "class", "value", "low", "high"]]
    for metric in ("miou", "mdice", "fwiou"):
        value, (low, high) = getattr(scores, metric), getattr(ends, metric)
        rows.append([evaluation.protocol, metric, "", *map(_digits, (value, low, high))])
    for metric in ("iou", "dice"):
        values, ranges = getattr(scores, metric), getattr(ends, metric)
        for name, value, (low, high) in zip(evaluation.palette.names, values, ranges, strict=True):
            rows.append([evaluation.protocol, metric, name, *map(_digits, (value, low, high))])
    return rows


def _image_rows(evaluation: Evaluation) -> list[list[object]]:
    """IoU of each class in each image, empty where it does not occur."""
    names = evaluation.palette.names
    fixed = ["image", "classes_true", "classes_let_through", "miou"]
    rows: list[list[object]] = [[*fixed, *free_columns(names, fixed)]]
    for number, image in enumerate(evaluation.names):
        scores = score(evaluation.confusions[number])
        classes = [
            ";".join(name for name, flag in zip(names, flags[number], strict=True) if flag)
            for flags in (evaluation.true_classes, evaluation.gates)
        ]
        rows.append([image, *classes, _digits(scores.miou), *map(_digits, scores.iou)])
    return rows


def _digits(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"


def _plain(value: float) -> float | None:
    """Replace NaN by None, as JSON has none."""
    return None if math.isnan(value) else value


def _write_csv(path: Path, rows: list[list[object]]) -> None:
    write_text(format_csv(rows), path)
