"""Detect tissue from a slide's colours, as a coarse mask."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wsiseg.config import TissueConfig
from wsiseg.geometry import Box
from wsiseg.slide import Slide
from wsiseg.tissue.glass import find_glass
from wsiseg.tissue.neighbours import around, beside
from wsiseg.tissue.pieces import drop_small

__all__ = ["detect_tissue"]

Mask = NDArray[np.bool_]
Image = NDArray[np.uint8]

_STRIP_PIXELS = 2**17
"""Number of mask pixels classified at a time: their densities stay in the processor's cache."""

# Stain. Haematoxylin and eosin both absorb green most; grey (shadow, dust, edges) absorbs all
# colours equally.
_MIN_TINT = 0.01
"""Optical density by which green must exceed red or blue."""
_MIN_TINT_SHARE = 0.15
"""The same as a share of green's density."""

# Pen
_PEN_DENSITY = 0.12
"""Smallest mean optical density of a stroke."""
_PEN_RATIO = 1.15
"""Blue and green ink absorb red this many times more than green: H&E never does."""
_BLACK_TINT_SHARE = 0.2
"""Black ink: green exceeds red or blue by less than this share of its density."""
_BLACK_DENSITY = 0.5
"""Black ink is at least this dense in green; shadows are not."""
_RED_DENSITY, _RED_BLUE, _RED_RED = 0.45, 0.75, 0.2
"""Red ink: dense in green, nearly as dense in blue (eosin is not), nearly clear in red."""
_PEN_AREA_UM2 = 50_000.0
"""Smallest area of a stroke: dark nuclei, pigment and red cells are smaller."""
_PEN_RIM_UM = 40.0
"""Rim added to strokes, as ink fades at their edges into colours that tissue also has."""


def detect_tissue(slide: Slide, config: TissueConfig) -> Mask:
    """Detect the stained part of a slide.

    Optical density is measured relative to the slide's own glass, so grey or tinted glass and
    unscanned white are both background. Pixels are tissue if they absorb green most, as both dyes
    of H&E do, however pale; no threshold adapts to the image, so a blank slide stays blank. Gaps
    narrower than twice ``closing_um`` are closed (fat cells between their membranes), holes below
    ``min_hole_um2`` filled, pen strokes cut out, and pieces below ``min_area_um2`` dropped. Black
    padding is also background, but removes none of the tissue beside it.

    Parameters
    ----------
    slide
        An open slide.
    config
        Resolution and thresholds.

    Returns
    -------
    ``(h, w)`` bool on the slide's raster at ``config.mpp`` µm/px. Uses about 8 bytes per pixel.

    Raises
    ------
    SlideReadError
        If the pixels cannot be read.
    """
    stained, pen = _classify_slide(slide, config)
    pixel_um2 = config.mpp**2
    mask = _close(_drop_noise(stained), round(config.closing_um / config.mpp))
    del stained
    mask = ~drop_small(~mask, config.min_hole_um2 / pixel_um2)
    if pen.any():
        mask &= ~_grow(pen, math.ceil(_PEN_RIM_UM / config.mpp))
    return np.asarray(drop_small(mask, config.min_area_um2 / pixel_um2))


def _classify_slide(slide: Slide, config: TissueConfig) -> tuple[Mask, Mask]:
    """Return which pixels of the slide are stained, and which are ink: ``(h, w)`` each."""
    image = slide.read(Box(0, 0, *slide.raster_size(config.mpp)), config.mpp)
    glass = find_glass(image)
    stained, pen = (np.empty(image.shape[:2], bool) for _ in range(2))
    for rows in _strips(image):
        stained[rows], pen[rows] = _classify(image[rows], glass, config.min_density)
    pen = drop_small(pen, _PEN_AREA_UM2 / config.mpp**2)
    if pen.any():
        from wsiseg.tissue.padding import find_padding  # loads scipy, needed for few slides

        padding = find_padding(image, pen)
        stained &= ~padding
        pen = drop_small(pen & ~padding, _PEN_AREA_UM2 / config.mpp**2)
    return stained, pen


def _strips(image: Image) -> Iterator[slice]:
    height, width = image.shape[:2]
    step = max(1, _STRIP_PIXELS // width)
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


def _classify(image: Image, glass: NDArray[np.float64], min_density: float) -> tuple[Mask, Mask]:
    """Return which pixels of `image` ``(h, w, 3)`` are stained, and which look like ink."""
    densities = np.log10(np.maximum(glass, 1) / np.maximum(np.arange(256), 1)[:, None])
    tables = np.maximum(densities, 0).astype(np.float32)  # brighter than glass counts as glass
    red, green, blue = (tables[:, channel][image[..., channel]] for channel in range(3))
    tint = green - np.minimum(red, blue)
    stained = green >= min_density
    stained &= tint >= np.maximum(_MIN_TINT, _MIN_TINT_SHARE * green)
    ink = (red > _PEN_RATIO * green) & (red + green + blue > 3 * _PEN_DENSITY)
    ink |= (green > _BLACK_DENSITY) & (tint < _BLACK_TINT_SHARE * green)
    ink |= (green > _RED_DENSITY) & (blue > _RED_BLUE * green) & (red < _RED_RED * green)
    return stained, ink


def _drop_noise(mask: Mask) -> Mask:
    """Keep set pixels with at least 3 of 3 x 3 pixels set: lines remain, single pixels do not.

    Smoothing the colours instead would thicken dense edges and dilute the membranes of fat.
    """
    return np.asarray(mask & (around(np.add, mask.view(np.uint8)) >= 3))


def _close(mask: Mask, radius: int) -> Mask:
    """Close gaps narrower than twice `radius`; everything outside the image is background."""
    if radius == 0 or not mask.any():
        return mask
    grown = _grow(np.pad(mask, radius), radius)
    return np.asarray(~_grow(~grown, radius)[radius:-radius, radius:-radius])


def _grow(mask: Mask, radius: int) -> Mask:
    """Dilate by an octagon of about `radius`."""
    for step in range(radius):
        grown = beside(np.logical_or, mask, 0)
        if step % 2:
            mask = beside(np.logical_or, grown, 1)
        else:
            mask = grown | beside(np.logical_or, mask, 1)
    return mask
