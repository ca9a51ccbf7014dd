"""Which patient or slide a patch is of, as far as its file's name tells."""

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
"""Where on the slide a patch lies: named, or two numbers at the end, then digits of labels."""
_WITHIN = re.compile(r"\+(\d+)\+(\d+) *(?:\[[01 ]*\])?$")
"""Where within a part of the slide that the name tells before."""


class Place(NamedTuple):
    """Where a patch lies."""

    slide: str
    """Or the part of one within which places can be compared."""
    across: float
    """Pixels, columns or whatever the names count in."""
    down: float


def find_case(name: str) -> str | None:
    """The patient of a TCGA barcode, else what stands before the place of a patch on its slide.

    ``TCGA-A1-A0SK-DX1_xmin45749_ymin25055.png`` is of ``TCGA-A1-A0SK``, ``1031280-2300-27920-[1 0 0
    1].png`` of ``1031280``, ``slide 7 [x=448,y=0,w=224,h=224].png`` of ``slide 7``; None where a
    name tells no place, as ``0001.png``.
    """
    barcode = _TCGA.search(name)
    if barcode:
        return barcode[0].upper()
    name = _ENDINGS.sub("", name)
    place = _NAMED.search(name) or _NUMBERS.search(name)
    if place is None:
        return None
    case = re.sub(r"\[[^\]]*$", "", name[: place.start()])  # what a bracket also tells of the place
    return case.rstrip(" _-[(") or None


def find_place(name: str) -> Place | None:
    """Where a patch lies on its slide; None where its name does not tell.

    Either number may be the row: what lies beside what is the same.
    """
    name = _ENDINGS.sub("", name)
    found = _WITHIN.search(name) or _NAMED.search(name) or _NUMBERS.search(name)
    slide = name[: found.start()].rstrip(" _-[(") if found else ""
    return Place(slide, float(found[1]), float(found[2])) if found and slide else None


def group_cases(names: Sequence[str], cases: Sequence[str | None]) -> list[str] | None:
    """The case of each patch, each that has none by itself; None where nothing tells cases apart.

    That is where no case is known, or all patches are of one.
    """
    known = set(cases) - {None}
    if not known or len(set(cases)) == 1:
        return None
    return [f"patch {n}" if c is None else c for n, c in zip(names, cases, strict=True)]
