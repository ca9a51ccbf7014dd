"""Outputs of a finished map: made once, again only if settings changed, edited files kept."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from wsiseg.annotations import Annotations
from wsiseg.atomic import free_name, list_taken, open_atomic
from wsiseg.config import Config, ExportFormat, digest_of
from wsiseg.digests import hash_file
from wsiseg.export import (
    describe_left,
    export_slide,
    list_files,
    list_left,
    list_written,
    note_files,
    place_of,
)
from wsiseg.geometry import Box
from wsiseg.labels import keep_corrected
from wsiseg.qupath import export_geojson
from wsiseg.report import measure_classes, write_overlay, write_pictures
from wsiseg.run.jobs import OutputTree
from wsiseg.run.origin import describe_origin
from wsiseg.store import SlideStore

__all__ = ["Written", "clear_earlier", "write_outputs"]

_VERSION = 3
"""Of outlining, measuring and writing: raising it makes every output again."""
_LOG = logging.getLogger(__name__)

_OwnKind = Literal["overlay", "report"]
_Rows = list[dict[str, object]]
_State = tuple[int, int, str]
"""A file's size, time stamp in ns, and sha256."""


class Written(NamedTuple):
    """What a run knows of the outputs of a slide."""

    rows: _Rows
    """Of `measure_classes`."""
    notes: tuple[str, ...]
    """On the outputs, one sentence each."""
    outdated: tuple[str, ...]
    """Outputs, below the output folder, that an earlier run made from another map or with other
    settings, and that this one was not asked for."""


def write_outputs(
    store: SlideStore,
    tree: OutputTree,
    name: str,
    config: Config,
    tissue_mm2: float,
    outline: Callable[[], Annotations],
    *,
    overwrite: bool = False,
) -> Written:
    """Write the outputs that `config` asks for, except those that are there as a run wrote them.

    ``runs/outputs/NAME.json`` records what was made, from what, and the state of its files. A file
    that has changed since was edited by somebody: if it is in the way, it is renamed to
    ``FILE.edited.SUFFIX``, and a note says so. So is one that the same output has no more, while
    those that nobody has edited are deleted. Outputs of other formats are left alone; a note says
    which of them do not show this map.

    Parameters
    ----------
    store : of the stitched slide.
    name : of the slide within the run.
    outline : returns the regions; called only if something is to be made.
    overwrite : make everything again.

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
        record.keep_rows(made, rows)  # and each output as it is written: a run may be killed
        for out in pending:
            if out.kind == "geojson":
                keep_corrected(tree.root, name)
            _write(out, store, annotations, config, record, made)
    notes, outdated = [note for out in outputs for note in record.notes(out)], record.outdated(made)
    if outdated:
        notes.append(
            f"made from an earlier map or with other settings, and so left out of the report: "
            f"{', '.join(outdated)} (delete, or run again with the format in export.formats)"
        )
    return Written(rows, tuple(notes), outdated)


def clear_earlier(path: Path, kind: ExportFormat, written: list[Path]) -> tuple[str, ...]:
    """Clear the output of a run at `path`, written again by hand, of files it has no more.

    As in a run: those that nobody has edited are deleted, others renamed, which the notes say.
    Where no run has recorded what it wrote, nothing is done.
    """
    path = path.absolute()
    for root in path.parents:
        if (root / "runs" / "outputs").is_dir() and path.is_relative_to(root / kind):
            record = _Record(root, path.relative_to(root / kind).as_posix())
            return tuple(record.clear_left(_Output(kind, path), [w.absolute() for w in written]))
    return ()


@dataclass(frozen=True)
class _Output:
    kind: ExportFormat | _OwnKind
    path: Path
    """The file, or the folder of those formats that write one."""


def _kinds(config: Config) -> tuple[ExportFormat | _OwnKind, ...]:
    return (*config.export.formats, "overlay", "report")


def _place(tree: OutputTree, name: str, kind: ExportFormat | _OwnKind, config: Config) -> Path:
    if kind == "overlay":
        return tree.overlay(name)
    if kind == "report":
        return tree.pictures(name)
    if kind == "geojson":
        return tree.geojson(name, config.export.gzip)
    return tree.root / place_of(kind, name)


def _digest(store: SlideStore, config: Config) -> str:
    """Digest of what all outputs depend on."""
    facts = [store.slide["name"], store.slide["mpp"], store.slide["bounds"], store.mpp]
    how = config.export.model_dump(mode="json", exclude={"formats"})
    labels = [store.finished("stitch"), store.has_probabilities]
    return digest_of("outputs", _VERSION, labels, facts, config.outline, how)


def _write(
    out: _Output, store: SlideStore, annotations: Annotations, config: Config, record: _Record,
    made: str,
) -> None:  # fmt: skip
    written, notes = out.path, tuple[str, ...]()
    if out.kind == "geojson":  # which keeps edited files itself
        exported = export_geojson(annotations, out.path, config.export)
        written, notes = exported.path, exported.notes
        files = list_files(written)
    else:
        before = note_files(out.path)
        with _cleared(out, record) as edited:
            if out.kind == "overlay":
                write_overlay(store, out.path, annotations, _find_damage(store, config))
            elif out.kind == "report":
                write_pictures(store, out.path, annotations, describe_origin(config))
            else:
                export_slide(store, lambda: annotations, out.path, out.kind, config.export)
        files = list_written(out.path, before)
        notes = (*edited, *record.clear_left(out, files))
    for note in notes:
        _LOG.info("%s: %s", annotations.slide, note)
    record.add(out, made, written, files, notes)


def _find_damage(store: SlideStore, config: Config) -> list[Box]:
    return [box for *_, box in store.read_damage()] if config.slide.damaged == "blank" else []


@contextmanager
def _cleared(out: _Output, record: _Record) -> Iterator[list[str]]:
    """Move edited files aside while `out` is written; notes on them are in the list afterwards."""
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
                os.replace(aside, path)  # nothing was written there
            elif hash_file(path) == hash_file(aside):
                aside.unlink()  # not edited: the record of an earlier run is lost
            else:
                notes.append(f"{path.name} was edited: it is kept as {aside.name}")
        _drop_copies(list_files(out.path))


def _drop_copies(paths: list[Path]) -> None:
    """Delete copies that a killed run had moved aside, of files that turn out to be unedited."""
    for path in paths:
        for aside in list_taken(path, ".edited"):
            if aside.stat().st_size == path.stat().st_size and hash_file(aside) == hash_file(path):
                aside.unlink()


class _Record:
    """What was made from one slide, and the state of its files then."""

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self._path = root / "runs" / "outputs" / f"{name}.json"
        try:
            self._data: dict[str, Any] = dict(json.loads(self._path.read_bytes()))
        except (OSError, ValueError, TypeError):
            self._data = {}

    def is_finished(self, out: _Output, made: str) -> bool:
        """Whether `out` was made from the same, and is unchanged since."""
        entry = self._entry(out)
        files = entry.get("files", {})
        return entry.get("made") == made and all(
            _is_unchanged(self._root / name, state) for name, state in files.items()
        )

    def list_edited(self, out: _Output) -> list[Path]:
        """Return files where `out` is written that are not known to be as a run wrote them."""
        files = self._entry(out).get("files", {})
        return [
            path
            for path in list_files(out.path)
            if (state := files.get(self._name(path))) is None or not _is_unchanged(path, state)
        ]

    def rows(self, made: str) -> _Rows | None:
        """Return the measurements, if they were made from the same."""
        kept = self._data.get("measured", {})
        return list(kept["rows"]) if kept.get("made") == made else None

    def keep_rows(self, made: str, rows: _Rows) -> None:
        """Record the measurements."""
        self._data["measured"] = {"made": made, "rows": rows}
        self._save()

    def notes(self, out: _Output) -> list[str]:
        """Return the notes on `out` from when it was made, and on what lies beside its files."""
        entry = self._entry(out)
        files = [self._root / name for name in entry.get("files", {})]
        left = [] if out.kind == "geojson" else list_left(out.path, files)
        return [*entry.get("notes", ()), *describe_left(self._name(out.path), out.path, left)]

    def outdated(self, made: str) -> tuple[str, ...]:
        """Return outputs that were made from something else and have not been changed since."""
        return tuple(
            str(entry.get("written", name))
            for name, entry in self._data.get("outputs", {}).items()
            if entry.get("made") != made and self._is_any_unchanged(entry.get("files", {}))
        )

    def clear_left(self, out: _Output, files: list[Path]) -> list[str]:
        """Delete what an earlier run wrote of `out` and this one, which wrote `files`, did not.

        What was edited since is renamed; a note on each is returned.
        """
        entry, notes = self._entry(out), list[str]()
        if not entry.get("own"):
            return notes  # of an earlier version, which recorded a person's files as well
        for path, state in ((self._root / name, s) for name, s in entry["files"].items()):
            if path in files or not path.exists():
                continue
            if _is_unchanged(path, state):
                path.unlink()
            else:
                aside = free_name(path, ".edited")
                os.replace(path, aside)
                notes.append(f"{path.name} was edited: it is kept as {aside.name}")
        return notes

    def add(
        self, out: _Output, made: str, written: Path, files: list[Path], notes: tuple[str, ...]
    ) -> None:
        """Record that `out` was made, and the state of the files that were written."""
        self._data.setdefault("outputs", {})[self._name(out.path)] = {
            "made": made,
            "written": self._name(written),
            "files": {self._name(path): _inspect(path) for path in files},
            "own": True,
            "notes": notes,
        }
        self._save()

    def _save(self) -> None:
        with open_atomic(self._path) as file:
            file.write(json.dumps(self._data, indent=1).encode())

    def _is_any_unchanged(self, files: dict[str, _State]) -> bool:
        return any(_is_unchanged(self._root / name, state) for name, state in files.items())

    def _entry(self, out: _Output) -> dict[str, Any]:
        return dict(self._data.get("outputs", {}).get(self._name(out.path), {}))

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def _inspect(path: Path) -> _State:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns, hash_file(path)


def _is_unchanged(path: Path, state: _State) -> bool:
    try:
        facts = path.stat()
    except OSError:
        return False
    if [facts.st_size, facts.st_mtime_ns] == list(state[:2]):
        return True
    return facts.st_size == state[0] and hash_file(path) == state[2]
