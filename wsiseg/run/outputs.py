"""What a run writes of a finished map: made once, anew only where settings changed, never over
what somebody edited."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wsiseg.annotations import Annotations
from wsiseg.atomic import free_name, list_taken, open_atomic
from wsiseg.config import Config, ExportFormat, digest_of
from wsiseg.export import export_slide, place_of
from wsiseg.geometry import Box
from wsiseg.labels import keep_corrected
from wsiseg.qupath import export_geojson
from wsiseg.report import measure_classes, write_overlay, write_pictures
from wsiseg.run.jobs import OutputTree
from wsiseg.run.origin import describe_origin
from wsiseg.store import SlideStore

__all__ = ["write_outputs"]

_VERSION = 1
"""Of outlining, measuring and writing: a change of it makes every output anew."""
_LOG = logging.getLogger(__name__)

_Own = Literal["overlay", "report"]
_Rows = list[dict[str, object]]
_Seen = tuple[int, int, str]
"""A file's size, its time stamp in ns, and its sha256."""


def write_outputs(
    store: SlideStore,
    tree: OutputTree,
    name: str,
    config: Config,
    tissue_mm2: float,
    outline: Callable[[], Annotations],
    *,
    overwrite: bool = False,
) -> tuple[_Rows, tuple[str, ...]]:
    """Write what `config` asks for of one slide, unless it is there as a run wrote it.

    What was made, of what, and how its files looked then, is kept in ``runs/outputs/NAME.json``. A
    file that looks otherwise now is somebody's: where it stands in the way, it is renamed to
    ``FILE.edited.SUFFIX``, and that is said.

    Parameters
    ----------
    store : of the stitched slide.
    name : of the slide within the run.
    outline : gives the regions; called only if something is to be made.
    overwrite : make everything anew.

    Returns
    -------
    The rows of `measure_classes`, and what is to be said of the outputs, a sentence each.

    Raises
    ------
    WsisegError
        If an output cannot be written.
    """
    made = _digest(store, config)
    record = _Record(tree.root, name)
    outputs = [_Output(kind, _place(tree, name, kind, config)) for kind in _kinds(config)]
    pending = [out for out in outputs if overwrite or not record.is_finished(out, made)]
    rows = None if overwrite else record.rows(made)
    if pending or rows is None:
        annotations = outline()
        rows = measure_classes(annotations, tissue_mm2)
        record.keep_rows(made, rows)
        for out in pending:
            if out.kind == "geojson":
                keep_corrected(tree.root, name)
            _write(out, store, annotations, config, record, made)
        record.save()
    return rows, tuple(note for out in outputs for note in record.notes(out))


@dataclass(frozen=True)
class _Output:
    kind: ExportFormat | _Own
    path: Path
    """The file, or the folder of those formats that write one."""


def _kinds(config: Config) -> tuple[ExportFormat | _Own, ...]:
    return (*config.export.formats, "overlay", "report")


def _place(tree: OutputTree, name: str, kind: ExportFormat | _Own, config: Config) -> Path:
    if kind == "overlay":
        return tree.overlay(name)
    if kind == "report":
        return tree.pictures(name)
    if kind == "geojson":
        return tree.geojson(name, config.export.gzip)
    return tree.root / place_of(kind, name)


def _digest(store: SlideStore, config: Config) -> str:
    """What all outputs hang on."""
    facts = [store.slide["name"], store.slide["mpp"], store.slide["bounds"], store.mpp]
    how = config.export.model_dump(mode="json", exclude={"formats"})
    labels = [store.finished("stitch"), store.has_probabilities]
    return digest_of("outputs", _VERSION, labels, facts, config.outline, how)


def _write(
    out: _Output, store: SlideStore, annotations: Annotations, config: Config, record: _Record,
    made: str,
) -> None:  # fmt: skip
    written, notes = out.path, tuple[str, ...]()
    if out.kind == "geojson":  # which sees itself to what was edited
        exported = export_geojson(annotations, out.path, config.export)
        written, notes = exported.path, exported.notes
    else:
        with _cleared(out, record) as edited:
            if out.kind == "overlay":
                write_overlay(store, out.path, annotations, _find_damage(store, config))
            elif out.kind == "report":
                write_pictures(store, out.path, annotations, describe_origin(config))
            else:
                export_slide(store, lambda: annotations, out.path, out.kind, config.export)
        notes = tuple(edited)
    for note in notes:
        _LOG.info("%s: %s", annotations.slide, note)
    record.add(out, made, written, notes)


def _find_damage(store: SlideStore, config: Config) -> list[Box]:
    return [box for *_, box in store.read_damage()] if config.slide.damaged == "blank" else []


@contextmanager
def _cleared(out: _Output, record: _Record) -> Iterator[list[str]]:
    """Put aside what somebody edited while `out` is written; the list then tells of it."""
    notes: list[str] = []
    asides = []
    try:
        for path in record.list_edited(out):
            asides.append((path, free_name(path, ".edited")))
            os.replace(*asides[-1])
        yield notes
    finally:
        for path, aside in asides:
            if not path.exists():
                os.replace(aside, path)  # it was in nobody's way
            elif _hash(path) == _hash(aside):
                aside.unlink()  # no edit: the record of an earlier run is lost
            else:
                notes.append(f"{path.name} was edited: it is kept as {aside.name}")
        _drop_copies(_list_files(out.path))


def _drop_copies(paths: list[Path]) -> None:
    """Delete what a killed run put aside of files that nobody edited, as is known only now."""
    for path in paths:
        for aside in list_taken(path, ".edited"):
            if aside.stat().st_size == path.stat().st_size and _hash(aside) == _hash(path):
                aside.unlink()


class _Record:
    """What was made of one slide, and how its files looked then."""

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self._path = root / "runs" / "outputs" / f"{name}.json"
        try:
            self._data: dict[str, Any] = dict(json.loads(self._path.read_bytes()))
        except (OSError, ValueError, TypeError):
            self._data = {}

    def is_finished(self, out: _Output, made: str) -> bool:
        """Whether `out` was made so, and nobody touched it since."""
        entry = self._entry(out)
        files = entry.get("files", {})
        return entry.get("made") == made and all(
            _is_as_seen(self._root / name, seen) for name, seen in files.items()
        )

    def list_edited(self, out: _Output) -> list[Path]:
        """Files where `out` is written of which it is not known that they are as we wrote them."""
        files = self._entry(out).get("files", {})
        return [
            path
            for path in _list_files(out.path)
            if (seen := files.get(self._name(path))) is None or not _is_as_seen(path, seen)
        ]

    def rows(self, made: str) -> _Rows | None:
        """The measurements, if they were made so."""
        kept = self._data.get("measured", {})
        return list(kept["rows"]) if kept.get("made") == made else None

    def keep_rows(self, made: str, rows: _Rows) -> None:
        self._data["measured"] = {"made": made, "rows": rows}

    def notes(self, out: _Output) -> list[str]:
        """What was said of `out` when it was made."""
        return list(self._entry(out).get("notes", ()))

    def add(self, out: _Output, made: str, written: Path, notes: tuple[str, ...]) -> None:
        """Note that `out` was made, and how it looks now."""
        files = {self._name(path): _look(path) for path in _list_files(written)}
        entry = {"made": made, "files": files, "notes": notes}
        self._data.setdefault("outputs", {})[self._name(out.path)] = entry

    def save(self) -> None:
        with open_atomic(self._path) as file:
            file.write(json.dumps(self._data, indent=1).encode())

    def _entry(self, out: _Output) -> dict[str, Any]:
        return dict(self._data.get("outputs", {}).get(self._name(out.path), {}))

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def _list_files(path: Path) -> list[Path]:
    """The files of an output: itself, or a folder's own, and those in its ``images``.

    Deeper, a folder may hold outputs of another slide, whose name begins with its name.
    """
    if not path.is_dir():
        return [path] if path.exists() else []
    return sorted(
        file for folder in (path, path / "images") for file in folder.glob("*") if file.is_file()
    )


def _look(path: Path) -> _Seen:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns, _hash(path)


def _is_as_seen(path: Path, seen: _Seen) -> bool:
    try:
        facts = path.stat()
    except OSError:
        return False
    if [facts.st_size, facts.st_mtime_ns] == list(seen[:2]):
        return True
    return facts.st_size == seen[0] and _hash(path) == seen[2]


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
