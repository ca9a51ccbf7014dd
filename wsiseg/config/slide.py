"""How a slide is opened, and how its tissue is found."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wsiseg.config.model import Settings

__all__ = ["SlideConfig", "TissueConfig"]


class SlideConfig(Settings):
    """How slides are opened."""

    reader: Literal["auto", "direct", "openslide", "tiffslide"] = "auto"
    """The reader; `auto` takes the first that opens the slide. `direct` decodes the JPEG or JPEG
    2000 tiles of a TIFF itself: OpenSlide's pixels, several times as fast. It also reads TIFFs that
    others cannot open or would misread (strips, planes, 16 bits, palettes)."""
    scaled_decode: bool = True
    """Whether `direct` lets the JPEG decoder shrink by 2, 4 or 8 where that many pixels become one:
    1.7 times as fast as averaging decoded pixels, 50 dB from it, and as close to the original scan.
    """
    damaged: Literal["fail", "blank"] = "fail"
    """What to do with a slide with a tile that cannot be decoded: `fail`, or `blank`: the tile is
    treated as glass, counted and reported. A slide without any decodable tile fails in both cases.
    """
    mpp_override: float | None = Field(default=None, gt=0)
    """Level-0 µm/px to use instead of the metadata (both axes)."""
    white_level: int | None = Field(default=None, gt=0, le=65535)
    """The sample value of white in TIFFs with more than 8 bits (4095 for 12 bits in 16), instead of
    the file's. If null, SMaxSampleValue or OME's SignificantBits; TIFFs without these are refused.
    """


class TissueConfig(Settings):
    """How tissue is found."""

    mpp: float = Field(default=8.0, gt=0)
    """µm/px of the tissue mask."""
    min_density: float = Field(default=0.02, gt=0)
    """Optical density (log10, green, relative to bare glass) above which a pixel counts as stained.
    """
    closing_um: float = Field(default=24.0, ge=0)
    """Gaps narrower than twice this (µm) are closed, such as fat cells between their membranes."""
    min_area_um2: float = Field(default=10_000.0, ge=0)
    """Pieces of tissue smaller than this (µm²) are dropped."""
    min_hole_um2: float = Field(default=10_000.0, ge=0)
    """Holes smaller than this (µm²) are filled."""
    min_fraction: float = Field(default=0.05, ge=0, le=1)
    """A tile is kept if at least this fraction of it is tissue."""
