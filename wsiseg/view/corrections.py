"""Read and write `corrections/<slide>.geojson`, the corrections made in the viewer.

The file is a FeatureCollection in the coordinates of the run's own GeoJSON (level-0 pixels as
QuPath shows them, unless that has another origin), which QuPath can import directly. A file of
another origin is moved to that one as it is read, and so when it is next written. It contains only
corrections: regions that nobody touched are not in it. Every Feature has a geometry, an id,
QuPath's ``objectType`` and ``classification``, and ``properties.metadata.wsiseg``, which is one of

``reclassified``
    A region of the run: its id and complete outline, with the corrected class.
``deleted``
    A region of the run that is wrong: its id and outline. Its class is ``Ignore*``, which QuPath
    does not measure. For both kinds, ``metadata.from`` is the class from the run.
``drawn``
    A new area of a class, with a new id.
``checked``
    An area that was checked completely, so that the map with the corrections is right there; its
    class is ``Checked*``, and ``metadata.map`` is the digest of the labels of that map, which may
    be made again. Outside such areas, correctness is unknown.

The member ``wsiseg`` of the collection names the slide, the digest of the labels that were
corrected, the origin, and a digest of the features. A file whose digest does not match was changed
by another program: it is copied to ``.old`` before it is written again, and all its features, even
of other kinds, are kept; NaN among measurements becomes text, as QuPath writes it. A file that
could not be written again without a loss is refused. The map itself is never written.
"""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from wsiseg.atomic import open_atomic
from wsiseg.errors import DataError, GeoJsonError
from wsiseg.lock import hold
from wsiseg.qupath import Origin, read_origin
from wsiseg.qupath.fix.salvage import scrub
from wsiseg.qupath.form.document import parse_document, read_documents
from wsiseg.qupath.form.finding import Finding, Repair
from wsiseg.text import dump_json
from wsiseg.view.features import Feature, move_plain

__all__ = ["Change", "Content", "Corrections", "Edit"]

_WAIT_S = 30.0
_MAX_UNDO = 200
_REMEDY = "this correction is not saved: free disk space or grant access, then make it again"
_ADVICE = "the viewer did not write it: repair it with `wsiseg lint --fix`, or move it away"


class Edit(NamedTuple):
    """What became of one feature; None where it is not in the file."""

    feature: str
    """Its id."""
    before: Feature | None
    after: Feature | None


class Change(NamedTuple):
    """One change that was saved, of one feature or of several."""

    id: str
    """Names the change, to undo it; empty for one that undoes another, or changed nothing."""
    edits: tuple[Edit, ...]
    was: str
    """Version of the file before; see `Corrections.read`."""
    version: str


class Content(NamedTuple):
    """What a file of corrections holds."""

    features: list[Feature]
    version: str
    """Another one if the features are."""
    ours: bool
    """Whether the file is as the viewer wrote it, or missing."""
    facts: dict[str, Any]
    """What the file says of itself; empty if another program wrote it."""


_Make = Callable[[Feature | None], Feature | None]
"""Makes of the feature that is in the file, or of None, the one to be there."""


@dataclass
class Corrections:
    """The corrections of one slide; may be used from several threads."""

    path: Path
    facts: dict[str, Any] = field(default_factory=dict)
    """Metadata for the file: slide, labels, origin. Features are read and written in pixels of this
    origin; in those of the file if there is none."""
    corner: Origin | None = None
    """Origin of a file that does not say it, as QuPath's do: the corner of the slide's bounds; None
    if it is as in `facts`."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._changes: list[Change] = []

    def features(self) -> list[Feature]:
        """Read all features of the file, in its order; none if it does not exist.

        Raises
        ------
        GeoJsonError
            If the file is not a FeatureCollection, holds what JSON cannot, or says an origin that
            is none.
        """
        return self.read().features

    def read(self) -> Content:
        """Read the file; raises `GeoJsonError` as `features` does."""
        content = _read(self.path)
        start = read_origin(content.facts, self.path) or self.corner
        target = read_origin(self.facts, self.path)
        if start is None or target is None or start == target or not content.features:
            return content
        moved = move_plain(content.features, start, target)
        return content._replace(features=moved, version=_digest(moved))

    @property
    def undoable(self) -> list[str]:
        """The changes that can be undone, the last one last."""
        return [change.id for change in self._changes]

    def put(self, feature: Feature) -> Change:
        """Add a feature, or replace the one with the same id, and save."""
        return self._change({str(feature["id"]): lambda _: feature})

    def add(self, features: Iterable[Feature]) -> Change:
        """Add features, and save; those whose ids are there stay as they are."""
        return self._change({str(one["id"]): partial(_prefer, one) for one in features})

    def update(self, identity: str, change: Callable[[Feature], Feature | None]) -> Change:
        """Change or remove a feature, and save; raises `DataError` if no feature has that id."""

        def apply(feature: Feature | None) -> Feature | None:
            if feature is None:
                raise DataError(f"no correction has the id {identity}")
            return change(feature)

        return self._change({identity: apply})

    def remove(self, identity: str) -> Change:
        """Remove a feature, and save; raises `DataError` if no feature has that id."""
        return self.update(identity, lambda _: None)

    def undo(self, identity: str) -> Change:
        """Undo one change, not always the last one: others may have changed other features since.

        Raises
        ------
        DataError
            If there is no such change, or one of its features was changed again.
        """
        with self._lock:
            done = next((change for change in self._changes if change.id == identity), None)
            if done is None:
                raise DataError("this change cannot be undone any more")
            undone = self._save({edit.feature: partial(_restore, edit) for edit in done.edits})
            self._changes.remove(done)
            return undone

    def _change(self, makes: Mapping[str, _Make]) -> Change:
        with self._lock:
            change = self._save(makes)
            if change.edits:
                change = change._replace(id=str(uuid.uuid4()))
                self._changes = [*self._changes[1 - _MAX_UNDO :], change]
            return change

    def _save(self, makes: Mapping[str, _Make]) -> Change:
        """Replace features of the current file, by id, by what is made of each."""
        with hold(self.path, wait_s=_WAIT_S, remedy=_REMEDY):
            content = self.read()
            features: list[Feature | None] = [*content.features]
            # Another program may have left an id twice: the first one counts.
            places = {
                str(one.get("id")): at for at, one in reversed([*enumerate(content.features)])
            }
            edits = []
            for identity, make in makes.items():
                place = places.setdefault(identity, len(features))
                features += [None] * (place == len(features))
                edit = Edit(identity, features[place], make(features[place]))
                features[place] = edit.after
                edits += [edit] * (edit.before != edit.after)
            if not edits:
                return Change("", (), content.version, content.version)
            if not content.ours:
                _back_up(self.path)
            version = self._write([one for one in features if one is not None], content.facts)
        return Change("", tuple(edits), content.version, version)

    def _write(self, features: Sequence[Feature], before: Mapping[str, Any]) -> str:
        """Write the file, whose facts were those `before`; return its version."""
        version = _digest(features)
        origin = {"origin": before["origin"]} if "origin" in before else {}
        facts = {**origin, **self.facts, "corrections": 1, "features": version}
        head = dump_json(facts, option=orjson.OPT_SORT_KEYS)
        lines = b",\n".join(map(orjson.dumps, features))
        with open_atomic(self.path) as file:
            file.write(b'{"type":"FeatureCollection","wsiseg":' + head + b',"features":[\n')
            file.write(lines + b"\n]}\n")
        return version


def _prefer(new: Feature, known: Feature | None) -> Feature:
    return new if known is None else known


def _restore(edit: Edit, feature: Feature | None) -> Feature | None:
    """Return the feature before an edit; raises `DataError` if it was changed again since."""
    if feature != edit.after:
        raise DataError(
            "what this would undo was changed again, in another page or program: change or remove "
            "it in the list"
        )
    return edit.before


def _read(path: Path) -> Content:
    if not path.exists():
        return Content([], _digest([]), True, {})
    texts, findings = read_documents(path)
    tree, more = parse_document(texts[0]) if texts else (None, [])
    findings += more
    features = tree.get("features") if isinstance(tree, dict) else tree
    if not isinstance(features, list) or not all(isinstance(one, dict) for one in features):
        reason = f" ({findings[0]})" if findings else ""
        raise GeoJsonError(f"{path}: is not a FeatureCollection{reason}; {_ADVICE}")
    try:
        digest = _digest(features)
        strict = _spell_numbers(features, findings)
    except (TypeError, ValueError) as error:
        raise GeoJsonError(
            f"{path}: cannot be written as JSON again ({error}); {_ADVICE}"
        ) from error
    said = tree.get("wsiseg") if isinstance(tree, dict) else None
    facts = said if isinstance(said, dict) else {}
    return Content(strict, digest, facts.get("features") == digest, facts)


def _spell_numbers(features: list[Feature], findings: Sequence[Finding]) -> list[Feature]:
    """Make NaN and infinities among measurements text; raises `ValueError` if any are elsewhere."""
    if not any(finding.rule == "not-a-number" for finding in findings):
        return features
    repairs: list[Repair] = []
    spelt: list[Feature] = scrub(features, repairs)
    lost = [repair.message for repair in repairs if repair.dropped]
    if lost:
        raise ValueError("; ".join(lost))
    return spelt


def _digest(features: Sequence[Feature]) -> str:
    return hashlib.sha256(orjson.dumps(list(features), option=orjson.OPT_SORT_KEYS)).hexdigest()


def _back_up(path: Path) -> None:
    """Copy a file that another program wrote to an unused name."""
    number = 1
    while (backup := path.with_name(f"{path.name}.old{number if number > 1 else ''}")).exists():
        number += 1
    with open_atomic(backup) as file:
        file.write(path.read_bytes())
        file.flush()
        os.fsync(file.fileno())
