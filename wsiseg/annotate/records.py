"""What a run leaves on record: the tables of all slides, and one file a run."""

from __future__ import annotations

import csv
import json
import platform
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from wsiseg.annotate.jobs import OutputTree
from wsiseg.annotate.slide import SlideResult
from wsiseg.atomic import open_atomic
from wsiseg.config import Config
from wsiseg.lock import explained, hold
from wsiseg.report import write_tables

__all__ = ["write_run", "write_summary"]

_TURN_S = 120.0


def write_summary(tree: OutputTree, results: Sequence[SlideResult]) -> None:
    """Write the tables with the rows of this run, and those of slides from other runs.

    Other runs may write into the same folder meanwhile (the jobs of an array, a slide each): each
    waits for its turn to add its rows.

    Raises
    ------
    StoreError
        If the folder cannot be written.
    """
    with hold(tree.root / "summary.csv", wait_s=_TURN_S):
        _add_rows(tree, results)


def _add_rows(tree: OutputTree, results: Sequence[SlideResult]) -> None:
    fresh = {result.slide for result in results}
    summary = [row for row in _read_rows(tree.root / "summary.csv") if row["slide"] not in fresh]
    measured = [
        row for row in _read_rows(tree.root / "measurements.csv") if row["slide"] not in fresh
    ]
    for result in results:
        row = asdict(result)
        areas, _ = row.pop("class_mm2"), row.pop("measurements")
        error = row.pop("error")
        summary.append(
            row | {f"{name}_mm2": area for name, area in areas.items()} | {"error": error}
        )
        measured += result.measurements
    write_tables(tree.root, summary, measured)


def _read_rows(path: Path) -> list[dict[str, object]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8-sig") as file:
        return [dict(row) for row in csv.DictReader(file)]


def write_run(
    tree: OutputTree, config: Config, results: Sequence[SlideResult], executor: str,
    workers: int | None,
) -> None:  # fmt: skip
    """Keep what was run, with what, and how it ended, in `runs/`.

    Raises
    ------
    StoreError
        If the folder cannot be written.
    """
    from wsiseg import __version__

    record = {
        "version": __version__,
        "python": platform.python_version(),
        "machine": platform.platform(),
        "executor": executor,
        "workers": workers,
        "config": config.model_dump(mode="json"),
        "results": [asdict(result) for result in results],
    }
    name = f"{time.strftime('%Y%m%dT%H%M%S')}_{uuid.uuid4().hex[:6]}.json"
    with explained(tree.root), open_atomic(tree.root / "runs" / name) as file:
        file.write(json.dumps(record, indent=1).encode())
