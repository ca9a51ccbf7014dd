"""What a run leaves on record: the tables of all slides, and one file per run."""

from __future__ import annotations

import csv
import json
import math
import os
import platform
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wsiseg.atomic import open_atomic
from wsiseg.config import Config
from wsiseg.errors import StoreError
from wsiseg.lock import explained, hold
from wsiseg.run.jobs import TURN_S, OutputTree
from wsiseg.run.slide import SlideResult
from wsiseg.table import free_columns, unguard
from wsiseg.version import __version__

__all__ = ["name_run", "show_agreement", "write_run", "write_summary"]

_RECORDS = "runs/slides.jsonl"
_FINISHED = ("done", "no tissue")


def write_summary(
    tree: OutputTree, results: Sequence[SlideResult], *, order: Sequence[str] | None = None,
    since: float = math.inf,
) -> None:  # fmt: skip
    """Add rows to the tables, in place of earlier ones of the same slides.

    Other runs may write into the same folder at the same time (array jobs, one slide each): each
    waits for its turn to add its rows.

    Parameters
    ----------
    order
        Slides whose rows come last, in this order; those of `results` by default.
    since
        When the run began, in seconds since the epoch: a slide that failed in it, as another run
        was writing it, say, keeps the row of one that has finished it since.

    Raises
    ------
    StoreError
        If the folder cannot be written.
    """
    with hold(tree.root / "summary.csv", wait_s=TURN_S):
        _add_rows(tree, results, order or [result.slide for result in results], since)


def show_agreement(tree: OutputTree, scores: Mapping[str, Any]) -> Path:
    """Add the scores of a run's maps, from `describe_slides`, to its report.

    Raises
    ------
    StoreError
        If the folder cannot be written.
    """
    from wsiseg.report import AGREEMENT  # loads drawing libraries, which no slide should wait for

    with explained(tree.root), open_atomic(tree.root / AGREEMENT) as file:
        file.write(json.dumps(scores, indent=1).encode())
    write_summary(tree, [])
    return tree.root / "report.html"


def _add_rows(
    tree: OutputTree, results: Sequence[SlideResult], order: Sequence[str], since: float
) -> None:
    from wsiseg.report import write_tables  # as above

    known = _read_records(tree.root)
    results = _leave_out_beaten(known, results, since)
    fresh = {result.slide: result for result in results}
    paths = {result.path for result in results}
    records = [
        record for record in known
        if not _is_outdated(record, fresh.get(record["slide"]), paths)
    ]  # fmt: skip
    records += [asdict(result) | {"ended": time.time()} for result in results]
    places = {slide: place for place, slide in enumerate(order)}
    records.sort(key=lambda record: places.get(record["slide"], -1))
    lines = [json.dumps(record) for record in records]
    with open_atomic(tree.root / _RECORDS) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
    measured = [row for record in records for row in record["measurements"]]
    outdated = {path for record in records for path in record.get("outdated", ())}
    write_tables(tree.root, [*map(_row, records)], measured, outdated)


def _leave_out_beaten(
    known: Sequence[Mapping[str, Any]], results: Sequence[SlideResult], since: float
) -> list[SlideResult]:
    """Return the results but for failures of slides that another run has finished since."""
    finished = {
        (record["slide"], record["path"])
        for record in known
        if record["status"] in _FINISHED and record.get("ended", 0) >= since
    }
    return [
        result
        for result in results
        if result.status in _FINISHED or (result.slide, result.path) not in finished
    ]


def _is_outdated(
    record: Mapping[str, Any], other: SlideResult | None, paths: Collection[str]
) -> bool:
    """Whether a record's row goes: `other` has its name, and `paths` are those of all new rows.

    Two slides may have had one name, if one of them failed or both were begun at once.
    """
    finished, path = record["status"] in _FINISHED, record["path"]
    if other is None or other.path == path:
        return other is not None or (not finished and path in paths)
    if finished:
        return other.status in _FINISHED  # they have one store, so it is one slide, which moved
    return path in paths or not os.path.exists(path)


def _row(record: Mapping[str, Any]) -> dict[str, object]:
    """Return a row of `summary.csv`; the area of a class `tissue` is not the slide's tissue."""
    others = ("class_mm2", "ended", "error", "measurements", "outdated")
    row = {name: value for name, value in record.items() if name not in others}
    classes = record["class_mm2"]
    columns = free_columns([f"{name}_mm2" for name in classes], row)
    areas = dict(zip(columns, classes.values(), strict=True))
    return row | areas | {"error": record["error"]}


def _read_records(root: Path) -> list[dict[str, Any]]:
    """Return the fields of each slide's `SlideResult` so far, and when that was written.

    All tables are made from these.
    """
    path = root / _RECORDS
    if not path.exists():
        return _read_tables(root)
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise StoreError(
            f"{path}: is damaged ({error}); delete it, and run all slides again to have all in "
            f"one table (finished ones take no time)"
        ) from error


def _read_tables(root: Path) -> list[dict[str, Any]]:
    """Return the rows that an earlier wsiseg wrote, which kept no records."""
    records = {
        row["slide"]: {**row, "class_mm2": {}, "measurements": []}
        for row in _read_rows(root / "summary.csv")
    }
    for row in _read_rows(root / "measurements.csv"):
        if row["slide"] in records:
            records[row["slide"]]["measurements"].append(row)
    return list(records.values())


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        return [{unguard(name): unguard(cell) for name, cell in row.items()} for row in rows]


def name_run() -> str:
    """Return a unique name for the files of a run; names sort by time."""
    return f"{time.strftime('%Y%m%dT%H%M%S')}_{uuid.uuid4().hex[:6]}"


def _describe_config(config: Config) -> dict[str, Any]:
    """Return the settings; a checkpoint's path is absolute, as it is read from other folders."""
    plain = config.model_dump(mode="json")
    checkpoint = plain["predict"]["checkpoint"]
    if isinstance(checkpoint, str) and os.path.isfile(checkpoint):
        plain["predict"]["checkpoint"] = os.path.abspath(checkpoint)
    return plain


def write_run(
    tree: OutputTree, run: str, config: Config, results: Sequence[SlideResult], executor: str,
    workers: int | None,
) -> None:  # fmt: skip
    """Record the settings, machine and results of a run in ``runs/RUN.json``.

    Raises
    ------
    StoreError
        If the folder cannot be written.
    """
    record = {
        "version": __version__,
        "python": platform.python_version(),
        "machine": platform.platform(),
        "executor": executor,
        "workers": workers,
        "config": _describe_config(config),
        "results": [asdict(result) for result in results],
    }
    with explained(tree.root), open_atomic(tree.root / "runs" / f"{run}.json") as file:
        file.write(json.dumps(record, indent=1).encode())
