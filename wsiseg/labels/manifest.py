"""A table of slides with their label files, patients and splits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wsiseg.errors import DataError
from wsiseg.labels.stores import Names
from wsiseg.table import list_problems, read_table

__all__ = ["Manifest", "read_manifest"]

_COLUMNS = ("slide", "labels", "patient", "split", "mpp")
_SPLITS = ("train", "test")


@dataclass(frozen=True)
class Manifest:
    """A manifest's data, by number of the store."""

    path: Path
    labels: dict[Path, int]
    """The store of each label file."""
    patients: dict[int, str]
    splits: dict[int, str]
    """``train`` or ``test``, for the stores that have a split."""

    def find(self, path: Path) -> int | None:
        """Return the number of a label file's store."""
        return self.labels.get(path.resolve())


def read_manifest(path: str | Path, names: Names) -> Manifest:
    """Read the columns ``slide[,labels][,patient][,split]``; paths are relative to the
    manifest.

    Slides without a store are skipped, so that one manifest can serve many runs.

    Raises
    ------
    DataError
        If it cannot be read, or contradicts itself about a slide.
    """
    path = Path(path)
    table = read_table(path, _COLUMNS, ("slide",))
    problems = list(table.problems)
    labels: dict[Path, int] = {}
    patients: dict[int, str] = {}
    splits: dict[int, str] = {}
    for row in table.rows:
        at = names.find(row["slide"])
        if at is None:
            continue
        if "labels" in table.columns and row["labels"]:
            file = (path.parent / row["labels"]).resolve()
            if not file.exists():
                problems.append(f"{row.where}: labels {row['labels']!r} do not exist")
            elif labels.setdefault(file, at) != at:
                problems.append(f"{row.where}: {row['labels']!r} belong to another slide already")
        patient = row["patient"] if "patient" in table.columns else ""
        if patient and patients.setdefault(at, patient) != patient:
            problems.append(f"{row.where}: {row['slide']} was patient {patients[at]!r} before")
        split = row["split"].lower() if "split" in table.columns else ""
        if split and split not in _SPLITS:
            problems.append(f"{row.where}: split {split!r} is neither {' nor '.join(_SPLITS)}")
        elif split:
            splits[at] = split
    if problems:
        raise DataError(f"{path}: {len(problems)} problem(s){list_problems(problems)}")
    return Manifest(path, labels, patients, splits)
