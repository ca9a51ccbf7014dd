"""One thing that a person said of one place of a slide, whatever program wrote it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from shapely.geometry.base import BaseGeometry

__all__ = ["Drawn", "Kind", "Mark", "State", "classify"]

State = Literal["", "drawn", "reclassified", "deleted", "checked"]
"""What became of a place of a finished map; empty where there was no map."""
Kind = Literal["class", "checked", "ignored", "nothing"]


@dataclass(frozen=True)
class Mark:
    """A labelled area or point."""

    name: str
    """Its class, as the file spells it; empty if it has none."""
    geometry: BaseGeometry
    """In the file's pixels: areas, or points."""
    where: str
    """The feature's place in its file, for messages."""
    state: State = ""
    region: str = ""
    """Id of the region of our own map that was reclassified or deleted."""


@dataclass
class Drawn:
    """What one file says of one slide."""

    marks: list[Mark] = field(default_factory=list)
    level0: bool = False
    """Whether (0, 0) is level 0's corner, whatever the settings say of QuPath's files."""
    mpp: float | None = None
    """Level-0 µm/px that the file believes the slide to have."""
    size: tuple[float, float] | None = None
    """Width and height that the file believes the slide to have, level-0 px as QuPath shows it."""
    notes: list[str] = field(default_factory=list)
    """What was passed over, and why."""


def classify(
    name: str, mapping: Mapping[str, str], classes: Collection[str] = ()
) -> tuple[Kind, str]:
    """What a class name means, and the class that it stands for after `mapping`.

    A name that ends in ``*`` is no class, unless it is one of `classes`: ``Ignore*`` is left out,
    ``Checked*`` is an area in which all there is was marked, and any other, as QuPath's frames
    ``Region*``, says nothing.
    """
    name = mapping.get(name, name)
    mark = name.partition(":")[0].strip()
    if name in classes or (name and not mark.endswith("*")):
        return "class", name
    start = mark.lower()
    if start.startswith("checked"):
        return "checked", name
    return ("ignored" if start == "ignore*" else "nothing"), name
