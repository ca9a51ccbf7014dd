"""What lies beside each pixel of an image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["around", "beside"]


def around(combine: np.ufunc, image: NDArray[Any]) -> NDArray[Any]:
    """`combine` over the 3 x 3 neighbours; there are none beyond the frame."""
    return beside(combine, beside(combine, image, 0), 1)


def beside(combine: np.ufunc, image: NDArray[Any], axis: int) -> NDArray[Any]:
    """The same over each pixel and the two beside it along `axis`."""
    image = image.swapaxes(0, axis)
    out = image.copy("K")
    combine(out[1:], image[:-1], out=out[1:])
    combine(out[:-1], image[1:], out=out[:-1])
    return out.swapaxes(0, axis)
