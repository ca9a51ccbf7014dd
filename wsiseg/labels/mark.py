"""A label that a person gave to a place on a slide, independent of the program."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from shapely.geometry.base import BaseGeometry

from wsiseg.qupath.read.features import is_ignored_class

__all__ = ["Drawn", "Kind", "Mark", "State", "classify"]

State = Literal["", "drawn", "reclassified", "deleted", "checked"]
"""How a person changed a finished map there; empty if there was no map."""
Kind = Literal["class", "checked", "ignored", "nothing"]


@dataclass(frozen=True)
class Mark:
    """A labelled area or point."""

    name: str
    """Class name as in the file; empty if there is none."""
    geometry: BaseGeometry
    """Areas or points, in the file's pixels."""
    where: str
    """Location of the feature in its file, for messages."""
    state: State = ""
    region: str = ""
    """Id of the region of our own map that was reclassified or deleted."""
    of_map: str = ""
    """Digest of the labels of the map that a checked area is about; empty if nothing tells."""


@dataclass
class Drawn:
    """The labels of one slide in one file."""

    marks: list[Mark] = field(default_factory=list)
    origin: tuple[float, float] | None = None
    """Level-0 position of the file's (0, 0), if the file or its format says it; else it is as the
    setting ``labels.origin`` says."""
    mpp: float | None = None
    """Level-0 µm/px of the slide according to the file."""
    size: tuple[float, float] | None = None
    """Width and height of the slide according to the file, in level-0 px as QuPath shows it."""
    notes: list[str] = field(default_factory=list)
    """What was skipped, and why."""


def classify(
    name: str, mapping: Mapping[str, str], classes: Collection[str] = ()
) -> tuple[Kind, str]:
    """Return the kind of a class name, and the class that it stands for after `mapping`.

    Names that begin with the word Ignore are left out, as QuPath's ``Ignore*``. Of the others, a
    name that ends in ``*`` is not a class: ``Checked*`` is an area in which everything present was
    marked, and any other, such as QuPath's ``Region*``, has no meaning. All may be `classes`.
    """
    name = mapping.get(name, name)
    if name in classes:
        return "class", name
    if is_ignored_class(name):
        return "ignored", name
    mark = name.partition(":")[0].strip()
    if name and not mark.endswith("*"):
        return "class", name
    return ("checked" if mark.lower().startswith("checked") else "nothing"), name
