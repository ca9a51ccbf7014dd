"""Decide which images are slides, and convert their samples to 8-bit RGB, for all readers.

=====================================  ==========================================================
RGB, YCbCr in JPEG and similar, 8 bit  unchanged; one plane, or one plane per colour
the same with 9 to 15 bits             scaled: white is ``2 ** bits - 1``
the same with 16 bits                  scaled from SMinSampleValue to SMaxSampleValue, else to
                                       OME's SignificantBits; rejected if the file has neither
more than 8 bits, ``white_level``      scaled to that, whatever the file says
indexed colour (palette), 8 bit        the palette's colours
transparency, straight or multiplied   composited on white; a fourth sample of unstated use is
                                       ignored
three grey planes of an OME-TIFF       RGB if its channels are named Red, Green and Blue
everything else                        rejected: one grey channel, other channels, CMYK, CIELab,
                                       YCbCr not in JPEG, floating point, signed, under 8 bit
=====================================  ==========================================================

Grey is rejected because colour distinguishes tissue from glass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from wsiseg.slide.base import composite_on_white

__all__ = ["Samples", "Unreadable", "admit_samples", "find_planes"]

Alpha = Literal["none", "straight", "multiplied"]

_WHITE_IS_ZERO, _GREY, _RGB, _PALETTE, _CMYK, _YCBCR, _CIELAB = 0, 1, 2, 3, 5, 6, 8
_COLOURS = {
    _WHITE_IS_ZERO: "grey, 0 is white", _GREY: "grey", _RGB: "RGB", _PALETTE: "indexed colour",
    4: "a mask", _CMYK: "CMYK", _YCBCR: "YCbCr", _CIELAB: "CIELab", 32803: "a colour filter array",
}  # fmt: skip
"""TIFF's PhotometricInterpretation."""
_PLAIN_CODECS = frozenset({1, 5, 8, 32773, 32946, 34925, 50000})
"""Compressions that do not convert colours, so that their decoders return YCbCr as it is."""
_SMIN, _SMAX = 340, 341  # SMinSampleValue, SMaxSampleValue
_ASSOCIATED, _UNASSOCIATED = 1, 2  # ExtraSamples
_NAMES = {"red": 0, "r": 0, "green": 1, "g": 1, "blue": 2, "b": 2}
_CONVERT = "convert it to 8-bit RGB"


class Unreadable(Exception):
    """Why an image is rejected, and what to do; finally with its channels and depth."""


@dataclass(frozen=True)
class Samples:
    """The conversion of decoded samples to 8-bit RGB."""

    channels: int = 3
    alpha: Alpha = "none"
    table: NDArray[np.uint8] | None = None
    """``(65536,)`` 8-bit value of each sample of more than 8 bits."""
    palette: NDArray[np.uint8] | None = None
    """``(256, 3)`` RGB of each index."""

    @property
    def plain(self) -> bool:
        """Whether the file's samples are 8-bit RGB, or YCbCr that the decoder converts."""
        is_rgb = self.channels == 3 and self.palette is None
        return is_rgb and self.alpha == "none" and self.table is None

    def to_rgb(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        """Convert decoded ``(H, W, S)`` samples of the file's own type to ``(H, W, 3)`` uint8."""
        if self.palette is not None:
            return np.asarray(self.palette[pixels[..., 0]])
        values = pixels[..., : 3 if self.alpha == "none" else 4]
        values = values if self.table is None else self.table[values]
        if self.alpha == "straight":
            return composite_on_white(values)
        if self.alpha == "multiplied":
            light = values[..., :3].astype(np.uint16) + 255 - values[..., 3:]
            return np.asarray(np.minimum(light, 255).astype(np.uint8))
        return np.asarray(values)

    def shows(self, pixels: NDArray[Any]) -> bool:
        """Whether any pixel of the decoded samples ``(H, W, S)`` is not fully transparent."""
        return self.alpha == "none" or bool(pixels[..., 3].any())


def admit_samples(
    page: tifffile.TiffPage,
    planes: Sequence[int],
    ome: str | None,
    channels: int,
    white: int | None = None,
) -> Samples:
    """Determine how the samples of `page`, a slide's level 0, are converted.

    Parameters
    ----------
    page
        The page, or the first of the planes.
    planes
        Which planes are red, green and blue, from `find_planes`; empty if one page holds all.
    ome
        The file's OME-XML, if it has any.
    channels
        Number of channels of the whole image, for messages.
    white
        Sample value of white for more than 8 bits (``slide.white_level``); overrides the file.

    Raises
    ------
    Unreadable
        If it is not a brightfield image in colour, or its range is unknown.
    """
    try:
        _check_colours(page, planes)
        _check_depth(page)
        if page.photometric == _PALETTE:
            return Samples(1, palette=_read_palette(page))
        table = None if page.bitspersample == 8 else _scale(page, *_find_range(page, ome, white))
    except Unreadable as error:
        raise Unreadable(f"{_describe(page, channels)}: {error}") from None
    return Samples(3 if planes else page.samplesperpixel, _find_alpha(page, planes), table)


def find_planes(
    page: tifffile.TiffPage, axes: str, shape: Sequence[int], ome: str | None
) -> tuple[int, ...]:
    """Find which pages of an OME-TIFF's series are its red, green and blue planes; empty if none.

    Those of the first focal plane and time point. Three grey channels may also be fluorescence
    stains, so their names decide.
    """
    if ome is None or page.samplesperpixel != 1 or "C" not in axes or axes[-2:] != "YX":
        return ()
    step = math.prod(shape[axes.index("C") + 1 : -2])
    names = [_name(channel) for channel in _find_all(ome, "Channel")[:4]]
    order = [_NAMES.get(name, -1) for name in names]
    return (
        tuple(order.index(colour) * step for colour in range(3))
        if sorted(order) == [0, 1, 2]
        else ()
    )


def _check_colours(page: tifffile.TiffPage, planes: Sequence[int]) -> None:
    if page.photometric == _PALETTE and page.samplesperpixel == 1:
        return
    if planes and page.photometric == _GREY:
        return
    if page.photometric in (_GREY, _WHITE_IS_ZERO):
        raise Unreadable(
            "tissue is distinguished from glass by its colour, and fluorescence channels are not a "
            "brightfield image; if these are the planes of an RGB image, name the OME channels "
            f"Red, Green and Blue, or {_CONVERT}",
        )
    if page.photometric == _YCBCR and page.compression in _PLAIN_CODECS:
        raise Unreadable(f"YCbCr is read in JPEG only; {_CONVERT}")
    if page.photometric not in (_RGB, _YCBCR):
        raise Unreadable(f"only RGB, YCbCr and indexed colour are read; {_CONVERT}")
    if page.samplesperpixel not in (3, 4):
        raise Unreadable(f"only 3 channels, and one of transparency, are read; {_CONVERT}")


def _check_depth(page: tifffile.TiffPage) -> None:
    if page.sampleformat != 1:
        raise Unreadable(f"only unsigned integers are read; {_CONVERT}")
    bits = page.bitspersample
    if not isinstance(bits, int) or not 8 <= bits <= 16:
        raise Unreadable(f"only 8 to 16 bits are read; {_CONVERT}")
    if page.photometric == _PALETTE and bits != 8:
        raise Unreadable(f"indexed colour is only read at 8 bits; {_CONVERT}")


def _find_alpha(page: tifffile.TiffPage, planes: Sequence[int]) -> Alpha:
    extra = tuple(page.extrasamples)[:1]
    if planes or page.samplesperpixel != 4:
        return "none"
    if extra == (_ASSOCIATED,):
        return "multiplied"
    return "straight" if extra == (_UNASSOCIATED,) else "none"


def _read_palette(page: tifffile.TiffPage) -> NDArray[np.uint8]:
    colours = None if page.colormap is None else np.asarray(page.colormap)
    if colours is None or colours.shape != (3, 256):
        raise Unreadable(f"its palette is missing; {_CONVERT}")
    # Some writers store 8-bit colours where TIFF requires 16 bits.
    colours = colours >> 8 if colours.max() > 255 else colours
    return np.ascontiguousarray(colours.T.astype(np.uint8))


def _find_range(page: tifffile.TiffPage, ome: str | None, white: int | None) -> tuple[int, int]:
    """Return the sample values of black and white."""
    bits = page.bitspersample
    low, high = (_tag_values(page, code) for code in (_SMIN, _SMAX))
    if white is not None:
        return min(low, default=0), white
    if high:
        return min(low, default=0), max(high)
    if bits < 16:
        return 0, 2**bits - 1
    significant = _significant_bits(ome)
    if significant is None:
        raise Unreadable(
            "nothing says how many of the bits are used (SMaxSampleValue, tag 341, or OME's "
            "SignificantBits); give the sample value of white (for 12 bits, --set "
            f"slide.white_level=4095), or {_CONVERT}",
        )
    return 0, 2**significant - 1


def _tag_values(page: tifffile.TiffPage, code: int) -> list[int]:
    """Return a tag's values for the colours; transparency has a range of its own."""
    value = page.tags.valueof(code)
    values = () if value is None else value if isinstance(value, tuple) else (value,)
    return [int(each) for each in values[:3]]


def _significant_bits(ome: str | None) -> int | None:
    pixels = [] if ome is None else _find_all(ome, "Pixels")
    text = pixels[0].get("SignificantBits", "") if pixels else ""
    return int(text) if text.isdecimal() and 1 <= int(text) <= 16 else None


def _scale(page: tifffile.TiffPage, low: int, high: int) -> NDArray[np.uint8]:
    if not 0 <= low < high <= 2**page.bitspersample - 1:
        raise Unreadable(f"it says that samples go from {low} to {high}; {_CONVERT}")
    fractions = (np.arange(2**16) - low) / (high - low)
    return np.rint(np.clip(fractions, 0, 1) * 255).astype(np.uint8)


def _describe(page: tifffile.TiffPage, count: int) -> str:
    bits = page.bitspersample
    kind = {1: "", 2: "signed ", 3: "floating-point "}.get(page.sampleformat, "complex ")
    colour = _COLOURS.get(page.photometric, f"photometric {int(page.photometric)}")
    return f"{count} {kind}channel{'s' * (count != 1)} of {bits} bit{'s' * (bits != 1)} ({colour})"


def _find_all(ome: str, name: str) -> list[ElementTree.Element]:
    """Return the elements of this name in the first image, whatever the schema's version."""
    try:
        root = ElementTree.fromstring(ome)
    except ElementTree.ParseError:
        return []
    images = [each for each in root.iter() if _local(each) == "Image"][:1]
    return [each for image in images for each in image.iter() if _local(each) == name]


def _local(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _name(channel: ElementTree.Element) -> str:
    return (channel.get("Name") or "").strip().casefold()
