"""Read a patch's patient, slide and position from its file name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Place", "find_case", "find_place", "group_cases"]

_TCGA = re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}", re.IGNORECASE)
_ENDINGS = re.compile(r"\.(?:png|jpe?g|tiff?|bmp|svs|ndpi|mrxs|scn|czi|vsi|zarr)$", re.IGNORECASE)
_NAMED = re.compile(
    r"[ _\-\[(,;](?:x|xmin|row|r)[ _=]?(-?\d+)[^a-z0-9]*(?:y|ymin|column|col|c)[ _=]?(-?\d+)",
    re.IGNORECASE,
)
_NUMBERS = re.compile(r"[ _-]+(\d+)[ _,-]+(\d+)[ _-]*(?:\[[01 ]*\])?$")
"""Position of a patch on its slide: named (above), or two final numbers, then label digits."""
_WITHIN = re.compile(r"\+(\d+)\+(\d+) *(?:\[[01 ]*\])?$")
"""Position within the part of the slide that the preceding text names."""


class Place(NamedTuple):
    """Position of a patch on its slide."""

    slide: str
    """The slide, or the part of it within which positions are comparable."""
    across: float
    """In pixels, columns or whatever unit the names use."""
    down: float


def find_case(name: str) -> str | None:
    """Return the patient of a TCGA barcode, else the text before the patch's position.

    ``TCGA-A1-A0SK-DX1_xmin45749_ymin25055.png`` gives ``TCGA-A1-A0SK``, ``1031280-2300-27920-[1 0 0
    1].png`` gives ``1031280``, ``slide 7 [x=448,y=0,w=224,h=224].png`` gives ``slide 7``. Returns
    None if the name contains no position, such as ``0001.png``.
    """
    barcode = _TCGA.search(name)
    if barcode:
        return barcode[0].upper()
    name = _ENDINGS.sub("", name)
    place = _NAMED.search(name) or _NUMBERS.search(name)
    if place is None:
        return None
    # A bracket that is still open belongs to the position.
    case = re.sub(r"\[[^\]]*$", "", name[: place.start()])
    return case.rstrip(" _-[(") or None


def find_place(name: str) -> Place | None:
    """Return a patch's position on its slide; None if its name does not contain it.

    Either number may be the row: which patches are neighbours does not depend on it.
    """
    name = _ENDINGS.sub("", name)
    match = _WITHIN.search(name) or _NAMED.search(name) or _NUMBERS.search(name)
    slide = name[: match.start()].rstrip(" _-[(") if match else ""
    return Place(slide, float(match[1]), float(match[2])) if match and slide else None


def group_cases(names: Sequence[str], cases: Sequence[str | None]) -> list[str] | None:
    """Return the case of each patch; a patch without one is a case of its own.

    Returns None if cases cannot be told apart: none is known, or all patches belong to one.
    """
    if len(set(cases)) == 1 or not set(cases) - {None}:
        return None
    return [f"patch {n}" if c is None else c for n, c in zip(names, cases, strict=True)]
