"""How a slide is opened, and where its tissue is looked for."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wsiseg.config.model import Settings

__all__ = ["SlideConfig", "TissueConfig"]


class SlideConfig(Settings):
    """How slides are opened."""

    reader: Literal["auto", "direct", "openslide", "tiffslide"] = "auto"
    """What reads the slide; `auto` takes the first that opens it. `direct` decodes the JPEG or
    JPEG 2000 tiles of a TIFF itself: OpenSlide's pixels, several times as fast. It also takes the
    TIFFs that another does not open, or would misread (strips, planes, 16 bits, palettes)."""
    scaled_decode: bool = True
    """`direct` lets the JPEG decoder shrink by 2, 4 or 8 where so many pixels make one: 1.7 times
    as fast as the mean of decoded pixels, 50 dB from it, and as near to what was scanned."""
    damaged: Literal["fail", "blank"] = "fail"
    """What becomes of a slide of which a tile cannot be decoded: it fails, or the tile is taken for
    glass, counted and told. A slide none of whose tiles can be decoded fails either way."""
    mpp_override: float | None = Field(default=None, gt=0)
    """Level-0 µm/px to use instead of the metadata (both axes)."""
    white_level: int | None = Field(default=None, gt=0, le=65535)
    """The sample that is white in TIFFs of more than 8 bits (4095 of 12 bits in 16), over what the
    file says; null: SMaxSampleValue or OME's SignificantBits, without which they are refused."""


class TissueConfig(Settings):
    """Where tissue is looked for."""

    mpp: float = Field(default=8.0, gt=0)
    """µm/px of the tissue mask."""
    min_density: float = Field(default=0.02, gt=0)
    """Optical density (log10, green, against bare glass) from which a pixel counts as stained."""
    closing_um: float = Field(default=24.0, ge=0)
    """Gaps narrower than twice this (µm) are closed: fat cells between their membranes."""
    min_area_um2: float = Field(default=10_000.0, ge=0)
    """Pieces of tissue smaller than this (µm²) are dropped."""
    min_hole_um2: float = Field(default=10_000.0, ge=0)
    """Holes smaller than this (µm²) are filled."""
    min_fraction: float = Field(default=0.05, ge=0, le=1)
    """A tile is kept if at least this fraction of it is tissue."""
