"""Find black padding, with which scanners and converters fill areas without an image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsiseg.tissue.pieces import drop_small

__all__ = ["find_padding"]

Mask = NDArray[np.bool_]

_MAX_BRIGHTNESS = 90
"""No channel of padding is brighter than this."""
_MAX_TINT = 12
"""Largest difference between the channels of padding."""
_MAX_RANGE = 8
"""Largest difference of brightness within 3 x 3 pixels of padding."""
_BLACK = 2
"""A piece with no brighter channel is padding whatever its edge."""
_MIN_PIXELS = 9
"""Smallest piece of padding, 3 x 3 pixels; thinner ones are lines."""
_EDGE, _BEYOND = (2.5, 3.5), (5.0, 7.0)
"""Distances in pixels from padding: just past its edge, and clearly in its surroundings."""
_HARD = 0.7
"""Just past a hard edge, brightness has covered this share of the way from padding to surroundings;
ink, which fades over some 20 µm, has covered less."""
_MARGIN = 8
"""Pixels around a piece that are examined."""
_MIN_CONTRAST = 30
"""The surroundings of padding are at least this much brighter."""
_RIM = 3
"""Distance in pixels from padding within which its edge is mixed with its surroundings."""


def find_padding(image: NDArray[np.uint8], ink: Mask) -> Mask:
    """Return which pixels ``(h, w)`` are padding, its rim, or black lines of 1 or 2 pixels.

    Padding is dark, colourless and nearly uniform, and ends abruptly; or it is simply black.

    Parameters
    ----------
    image
        ``(h, w, 3)`` uint8, at about 8 µm/px.
    ink
        ``(h, w)`` bool, pixels that look like ink; padding is among them.
    """
    brightest = image.max(2)
    dark = (brightest <= _MAX_BRIGHTNESS) & (brightest - image.min(2) <= _MAX_TINT)
    padding = ink & dark & ~_open(dark)
    brightness = image[..., 1]
    range_ = ndimage.maximum_filter(brightness, 3) - ndimage.minimum_filter(brightness, 3)
    pieces, _ = ndimage.label(drop_small(dark & (range_ <= _MAX_RANGE), _MIN_PIXELS))
    for label, window in enumerate(ndimage.find_objects(pieces), start=1):
        rows, cols = (slice(max(0, side.start - _MARGIN), side.stop + _MARGIN) for side in window)
        piece = pieces[rows, cols] == label
        if ink[rows, cols][piece].mean() < 0.5:
            continue  # pigment, or ink too small for a stroke
        distance = ndimage.distance_transform_edt(~piece)
        if _is_padding(image[rows, cols], piece, distance, pieces[rows, cols] == 0):
            padding[rows, cols] |= (distance <= _RIM) & (ink | dark)[rows, cols]
    return np.asarray(padding)


def _is_padding(
    image: NDArray[np.uint8], piece: Mask, distance: NDArray[np.float64], outside: Mask
) -> bool:
    """Whether a dark and uniform `piece` of `image` is black, or has a hard edge."""
    if np.percentile(image[piece].max(1), 99) <= _BLACK:
        return True
    edge, beyond = (
        image[..., 1][outside & (distance >= near) & (distance <= far)]
        for near, far in (_EDGE, _BEYOND)
    )
    if not len(edge) or not len(beyond):
        return True  # the piece fills the image
    own = image[..., 1][piece].mean()
    contrast = beyond.mean() - own
    return bool(contrast >= _MIN_CONTRAST and edge.mean() - own >= _HARD * contrast)


def _open(mask: Mask) -> Mask:
    """Remove parts of `mask` thinner than 3 pixels; its edge is repeated outside the image."""
    padded = np.pad(mask, 2, mode="edge")
    opened = ndimage.binary_opening(padded, np.ones((3, 3), bool))
    return np.asarray(opened[2:-2, 2:-2])
