"""A coarse mask of the tissue from the slide's own colours."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsiseg.config import TissueConfig
from wsiseg.geometry import Box
from wsiseg.slide import Slide

__all__ = ["detect_tissue"]

Mask = NDArray[np.bool_]
Image = NDArray[np.uint8]

_STRIP_PIXELS = 2**17
"""Mask pixels that are looked at at once: their densities stay in the processor's cache."""

# Glass
_WHITE = 253
"""Pixels this bright in every channel were never scanned, or are glass of a balanced scanner."""
_GLASS_DARKEST = 190
"""No channel of scanned glass is darker than this."""
_GLASS_TINT = 15
"""Largest difference between the channels of scanned glass, whatever the lamp."""
_GLASS_PINK = 6
"""Green below both red and blue by more than this is pale tissue, not glass."""
_GLASS_RANGE = 2
"""Largest difference of brightness among the 3 x 3 neighbours of glass; tissue has texture."""
_GLASS_HALO = 2
"""Rows beside a strip that the smoothing and the range of its glass look at."""
_GLASS_SHARE = 0.01
"""Share of the slide that must look like glass; below it, white is taken."""

# Stain. Haematoxylin and eosin both absorb green most; grey (shadow, dust, edge) absorbs all alike.
_MIN_TINT = 0.01
"""Optical density by which green must lead over red or blue."""
_MIN_TINT_SHARE = 0.15
"""The same as a share of green's density."""

# Pen
_PEN_DENSITY = 0.12
"""Mean optical density from which a stroke is looked for."""
_PEN_LEAD = 1.15
"""Blue and green ink absorb red this many times more than green: H&E never does."""
_BLACK_TINT_SHARE = 0.2
"""Black ink: green leads by less than this share of its density."""
_BLACK_DENSITY = 0.5
"""Black ink is at least this dense in green; shadows are not."""
_RED_DENSITY, _RED_BLUE, _RED_RED = 0.45, 0.75, 0.2
"""Red ink: dense in green, nearly as dense in blue (eosin is not), nearly clear in red."""
_PEN_AREA_UM2 = 50_000.0
"""A stroke is at least this large: dark nuclei, pigment and red cells are not."""
_PEN_RIM_UM = 40.0
"""Ink thins out at the edge of a stroke into colours that tissue has too."""


def detect_tissue(slide: Slide, config: TissueConfig) -> Mask:
    """Find the stained part of a slide.

    Every pixel's optical density is taken against the slide's own glass, so grey or tinted glass
    and unscanned white are both background. Tissue is what absorbs green most, as both dyes of
    H&E do, however pale; there is no threshold that adapts to the image, so a blank slide stays
    blank. Gaps narrower than twice ``closing_um`` are closed (fat cells between their membranes),
    holes below ``min_hole_um2`` filled, pen strokes cut out, and pieces below ``min_area_um2``
    dropped.

    Parameters
    ----------
    slide
        An open slide.
    config
        Resolution and thresholds.

    Returns
    -------
    ``(h, w)`` bool on the slide's raster at ``config.mpp`` µm/px. Takes some 8 bytes a pixel.

    Raises
    ------
    SlideReadError
        If the pixels cannot be read.
    """
    stained, pen = _find_colours(slide, config)
    pixel_um2 = config.mpp**2
    mask = _close(_drop_noise(stained), round(config.closing_um / config.mpp))
    del stained
    mask = ~_drop_small(~mask, config.min_hole_um2 / pixel_um2)
    pen = _drop_small(pen, _PEN_AREA_UM2 / pixel_um2)
    if pen.any():
        mask &= ~_grow(pen, math.ceil(_PEN_RIM_UM / config.mpp))
    return _drop_small(mask, config.min_area_um2 / pixel_um2)


def _find_colours(slide: Slide, config: TissueConfig) -> tuple[Mask, Mask]:
    """Which pixels of the slide are stained, and which look like ink: ``(h, w)`` each."""
    image = slide.read(Box(0, 0, *slide.raster_size(config.mpp)), config.mpp)
    glass = _find_glass(image)
    stained, pen = (np.empty(image.shape[:2], bool) for _ in range(2))
    for rows in _strips(image):
        stained[rows], pen[rows] = _classify(image[rows], glass, config.min_density)
    return stained, pen


def _strips(image: Image) -> Iterator[slice]:
    height, width = image.shape[:2]
    step = max(1, _STRIP_PIXELS // width)
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


def _find_glass(image: Image) -> NDArray[np.float64]:
    """The colour ``(3,)`` of bare glass in `image` ``(h, w, 3)``; white where there is none."""
    counts = np.zeros((256, 3, 256), np.int64)
    for rows in _strips(image):
        above = min(rows.start, _GLASS_HALO)
        around = image[rows.start - above : rows.stop + _GLASS_HALO]
        _count_glass(around, slice(above, above + rows.stop - rows.start), counts)
    per_darkest = counts[:, 0].sum(1)
    mode = int(np.convolve(per_darkest, [1, 1, 1], "same").argmax())
    near = counts[max(0, mode - 3) : mode + 4].sum(0)
    if near[0].sum() / math.prod(image.shape[:2]) < _GLASS_SHARE:
        return np.full(3, 255.0)
    return np.array([_median(channel) for channel in near])


def _count_glass(image: Image, rows: slice, counts: NDArray[np.int64]) -> None:
    """Count the glass in `rows` of `image`, smoothed: ``counts[darkest, channel, value]``."""
    image = ndimage.uniform_filter(image, (3, 3, 1))
    red, green, blue = (image[..., channel] for channel in range(3))
    low, high = np.minimum(red, blue), np.maximum(red, blue)
    darkest, brightest = np.minimum(low, green), np.maximum(high, green)
    range_ = _around(np.maximum, darkest) - _around(np.minimum, darkest)
    glassy = (darkest >= _GLASS_DARKEST) & (darkest < _WHITE)
    glassy &= (brightest - darkest <= _GLASS_TINT) & (low.astype(np.int16) - green <= _GLASS_PINK)
    glassy &= range_ <= _GLASS_RANGE
    glassy = glassy[rows]
    place = darkest[rows][glassy].astype(np.int64) * 256
    for channel in range(3):
        values = np.bincount(place + image[rows, :, channel][glassy], minlength=256 * 256)
        counts[:, channel] += values.reshape(256, 256)


def _median(counts: NDArray[np.int64]) -> float:
    """The median of values that occur so often."""
    below = counts.cumsum()
    middle = np.array([(below[-1] - 1) // 2, below[-1] // 2])
    return float(np.searchsorted(below, middle, "right").mean())


def _classify(image: Image, glass: NDArray[np.float64], min_density: float) -> tuple[Mask, Mask]:
    """Which pixels of `image` ``(h, w, 3)`` are stained, and which look like ink."""
    levels = np.log10(np.maximum(glass, 1) / np.maximum(np.arange(256), 1)[:, None])
    tables = np.maximum(levels, 0).astype(np.float32)  # brighter than glass is glass
    red, green, blue = (tables[:, channel][image[..., channel]] for channel in range(3))
    lead = green - np.minimum(red, blue)
    stained = green >= min_density
    stained &= lead >= np.maximum(_MIN_TINT, _MIN_TINT_SHARE * green)
    ink = (red > _PEN_LEAD * green) & (red + green + blue > 3 * _PEN_DENSITY)
    ink |= (green > _BLACK_DENSITY) & (lead < _BLACK_TINT_SHARE * green)
    ink |= (green > _RED_DENSITY) & (blue > _RED_BLUE * green) & (red < _RED_RED * green)
    return stained, ink


def _drop_noise(mask: Mask) -> Mask:
    """`mask` where at least 3 of 3 x 3 neighbours are set: a line stays, a lone pixel goes.

    Smoothing the colours instead would thicken dense edges and dilute the membranes of fat.
    """
    return np.asarray(mask & (_around(np.add, mask.view(np.uint8)) >= 3))


def _close(mask: Mask, radius: int) -> Mask:
    """Close gaps narrower than twice `radius`; beyond the frame is background."""
    if radius == 0 or not mask.any():
        return mask
    grown = _grow(np.pad(mask, radius), radius)
    return np.asarray(~_grow(~grown, radius)[radius:-radius, radius:-radius])


def _grow(mask: Mask, radius: int) -> Mask:
    """Dilate by an octagon of about `radius`."""
    for step in range(radius):
        grown = _beside(np.logical_or, mask, 0)
        if step % 2:
            mask = _beside(np.logical_or, grown, 1)
        else:
            mask = grown | _beside(np.logical_or, mask, 1)
    return mask


def _around(combine: np.ufunc, image: NDArray[Any]) -> NDArray[Any]:
    """`combine` over the 3 x 3 neighbours; there are none beyond the frame."""
    return _beside(combine, _beside(combine, image, 0), 1)


def _beside(combine: np.ufunc, image: NDArray[Any], axis: int) -> NDArray[Any]:
    """The same over each pixel and the two beside it along `axis`."""
    image = image.swapaxes(0, axis)
    out = image.copy("K")
    combine(out[1:], image[:-1], out=out[1:])
    combine(out[:-1], image[1:], out=out[:-1])
    return out.swapaxes(0, axis)


def _drop_small(mask: Mask, area: float) -> Mask:
    """`mask` without its 4-connected pieces of fewer than `area` pixels."""
    pieces, count = ndimage.label(mask)
    areas = np.zeros(count + 1, np.int64)
    _count(pieces.ravel(), areas)
    large = areas >= area
    large[0] = False
    return np.asarray(large[pieces])


@numba.njit(nogil=True, cache=True)
def _count(values, counts):  # type: ignore[no-untyped-def]  # numba infers the types
    for value in values:  # `bincount` takes 8 bytes a pixel more
        counts[value] += 1
