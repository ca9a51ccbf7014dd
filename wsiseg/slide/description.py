"""Read facts about pixels from a TIFF's ImageDescription: OME-XML, ImageJ's form, ``MPP =``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple
from xml.etree import ElementTree

from wsiseg.geometry import Size

__all__ = [
    "OmePixels",
    "microns",
    "read_description",
    "read_number",
    "read_ome",
    "read_scale",
    "to_measure",
    "was_written_here",
]

_MICRONS = {
    "pm": 1e-6, "å": 1e-4, "angstrom": 1e-4, "nm": 1e-3, "µm": 1.0, "um": 1.0, "mm": 1e3,
    "cm": 1e4, "dm": 1e5, "m": 1e6, "in": 25_400.0, '"': 25_400.0, "mil": 25.4, "thou": 25.4,
    "nanometer": 1e-3, "micron": 1.0, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4,
    "meter": 1e6, "inch": 25_400.0, "inche": 25_400.0,
}  # fmt: skip
_MICRO = str.maketrans({"\N{GREEK SMALL LETTER MU}": "µ", "\N{ANGSTROM SIGN}": "å"})
_DAMAGED = re.compile(r"(?:\\u00b5|\\xb5|[\xc2\xe2]µ|[\xce\xee]\xbc|\ufffd+|\?)(?=m)")
"""A micro sign that was written in an unusual way, or decoded with the wrong encoding."""

_NUMBER = r"([0-9]+(?:[.,][0-9]*)?(?:e[-+]?[0-9]+)?)"


class OmePixels(NamedTuple):
    """Facts about one image from OME-XML."""

    mpp: tuple[float, float] | None
    """µm/px along x and y."""
    planes: int
    """Number of focal planes."""
    objective: float | None
    """Nominal magnification."""


def microns(unit: str) -> float | None:
    """Return the micrometres in a unit of length, by any usual name; None for other units."""
    name = _DAMAGED.sub("µ", unit.strip().lower().translate(_MICRO))
    name = name.translate(_MICRO).replace("metre", "meter")
    return _MICRONS.get(name, _MICRONS.get(name.removesuffix("s")))


def read_description(properties: Mapping[str, str]) -> str:
    """Return the description, under either of OpenSlide's names for it; empty if there is none."""
    return properties.get("tiff.ImageDescription") or properties.get("openslide.comment") or ""


def read_number(text: str, key: str) -> float | None:
    """Return the positive number in ``key = number`` of a description; the point may be a comma.

    Key and number may be quoted, as in XML attributes and JSON.
    """
    match = re.search(
        rf"""(?:^|[|;,{{\s"]){key}"?\s*[=:]\s*"?{_NUMBER}""", text, re.IGNORECASE | re.MULTILINE
    )
    return to_measure(match[1]) if match else None


def read_scale(text: str) -> float | None:
    """Return the positive number in ``number µm/px`` of a description."""
    match = re.search(
        rf"(?:^|[^\w.,-]){_NUMBER}\s*(?:[µ\u03bcu]m|microns?)\s*(?:/|per)\s*(?:px|pix|pixel)s?\b",
        text, re.IGNORECASE,
    )  # fmt: skip
    return to_measure(match[1]) if match else None


def to_measure(text: str | None) -> float | None:
    """Parse a finite positive number; None for anything else, such as 0 or ``nan``."""
    try:
        value = float((text or "").replace(",", "."))
    except ValueError:
        return None
    return value if 0 < value < math.inf else None


def was_written_here(text: str) -> bool:
    """Whether OME-XML says that wsiseg wrote the file, as `wsiseg.export.pyramid` does."""
    return re.search(r'<OME\b[^>]*\bCreator="wsiseg"', text) is not None


@lru_cache(8)
def read_ome(text: str, size: Size | None = None) -> OmePixels | None:
    """Read the image of `size` pixels, or the first, from OME-XML; None for other text."""
    if "<OME" not in text and ":OME" not in text:
        return None
    try:
        # As text: the encoding that it declares no longer applies.
        root = ElementTree.fromstring(text.strip().strip("\0"))
    except (ElementTree.ParseError, ValueError):
        return None
    images = list(_elements(root, "Pixels"))
    if not images:
        return None
    matching = [image for image in images if size and _size(image) == size]
    pixels = (matching or images)[0]
    mpp = _length(pixels, "X"), _length(pixels, "Y")
    x, y = mpp[0] or mpp[1], mpp[1] or mpp[0]
    planes = to_measure(pixels.get("SizeZ")) or 1
    lenses = [to_measure(lens.get("NominalMagnification")) for lens in _elements(root, "Objective")]
    return OmePixels(
        (x, y) if x is not None and y is not None else None,
        int(planes),
        lenses[0] if len(set(lenses)) == 1 else None,
    )


def _elements(root: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (element for element in root.iter() if element.tag.rpartition("}")[2] == name)


def _size(pixels: ElementTree.Element) -> Size | None:
    width, height = to_measure(pixels.get("SizeX")), to_measure(pixels.get("SizeY"))
    return Size(int(width), int(height)) if width and height else None


def _length(pixels: ElementTree.Element, axis: str) -> float | None:
    value = to_measure(pixels.get(f"PhysicalSize{axis}"))
    unit = microns(pixels.get(f"PhysicalSize{axis}Unit") or "µm")
    return value * unit if value and unit else None
