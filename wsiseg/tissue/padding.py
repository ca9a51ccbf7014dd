"""Black that no pen drew: what scanners and converters fill in where they have no picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsiseg.tissue.pieces import drop_small

__all__ = ["find_padding"]

Mask = NDArray[np.bool_]

_BRIGHTEST = 90
"""No channel of padding is brighter than this."""
_NEUTRAL = 12
"""Largest difference between the channels of padding."""
_RANGE = 8
"""Largest difference of brightness among the 3 x 3 neighbours within padding."""
_BLACK = 2
"""Padding of no brighter channel is taken for it whatever its edge is."""
_LEAST = 9
"""Pixels, 3 x 3, that a piece of padding has at least; a thinner one is a line."""
_EDGE, _BEYOND = (2.5, 3.5), (5.0, 7.0)
"""Pixels from within padding at which its edge is past, and at which what lies beside it begins."""
_HARD = 0.7
"""Share of the way from padding to what lies beside it that is done behind a hard edge: ink, which
thins out over some 20 µm, has not come so far."""
_MARGIN = 8
"""Pixels around a piece that are looked at."""
_CONTRAST = 30
"""What lies beside padding is at least so much brighter."""
_RIM = 3
"""Pixels from within padding in which its edge is mixed with what lies beside it."""


def find_padding(image: NDArray[np.uint8], ink: Mask) -> Mask:
    """Which pixels ``(h, w)`` are padding, its rim, or black lines of 1 or 2 pixels.

    Padding is dark without colour, nearly uniform, and ends abruptly; or it is just black.

    Parameters
    ----------
    image
        ``(h, w, 3)`` uint8, at about 8 µm/px.
    ink
        ``(h, w)`` bool, what looks like ink; padding is looked for in it.
    """
    brightest = image.max(2)
    dark = (brightest <= _BRIGHTEST) & (brightest - image.min(2) <= _NEUTRAL)
    padding = ink & dark & ~_open(dark)
    brightness = image[..., 1]
    range_ = ndimage.maximum_filter(brightness, 3) - ndimage.minimum_filter(brightness, 3)
    within, _ = ndimage.label(drop_small(dark & (range_ <= _RANGE), _LEAST))
    for label, window in enumerate(ndimage.find_objects(within), start=1):
        rows, cols = (slice(max(0, side.start - _MARGIN), side.stop + _MARGIN) for side in window)
        piece = within[rows, cols] == label
        if ink[rows, cols][piece].mean() < 0.5:
            continue  # pigment, or ink too small for a stroke
        away = ndimage.distance_transform_edt(~piece)
        if _is_padding(image[rows, cols], piece, away, within[rows, cols] == 0):
            padding[rows, cols] |= (away <= _RIM) & (ink | dark)[rows, cols]
    return np.asarray(padding)


def _is_padding(
    image: NDArray[np.uint8], piece: Mask, away: NDArray[np.float64], beside: Mask
) -> bool:
    """Whether a dark and uniform `piece` of `image` is black, or has a hard edge."""
    if np.percentile(image[piece].max(1), 99) <= _BLACK:
        return True
    edge, beyond = (
        image[..., 1][beside & (away >= near) & (away <= far)] for near, far in (_EDGE, _BEYOND)
    )
    if not len(edge) or not len(beyond):
        return True  # it fills the frame
    own = image[..., 1][piece].mean()
    contrast = beyond.mean() - own
    return bool(contrast >= _CONTRAST and edge.mean() - own >= _HARD * contrast)


def _open(mask: Mask) -> Mask:
    """`mask` without what is thinner than 3 pixels; beyond the frame it goes on."""
    padded = np.pad(mask, 2, mode="edge")
    opened = ndimage.binary_opening(padded, np.ones((3, 3), bool))
    return np.asarray(opened[2:-2, 2:-2])
