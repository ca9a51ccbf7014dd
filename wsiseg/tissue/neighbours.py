"""Combine each pixel of an image with its neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["around", "beside"]


def around(combine: np.ufunc, image: NDArray[Any]) -> NDArray[Any]:
    """Apply `combine` to each pixel and its 3 x 3 neighbours within the image."""
    return beside(combine, beside(combine, image, 0), 1)


def beside(combine: np.ufunc, image: NDArray[Any], axis: int) -> NDArray[Any]:
    """Apply `combine` to each pixel and its two neighbours along `axis` within the image."""
    image = image.swapaxes(0, axis)
    out = image.copy("K")
    combine(out[1:], image[:-1], out=out[1:])
    combine(out[:-1], image[1:], out=out[:-1])
    return out.swapaxes(0, axis)
