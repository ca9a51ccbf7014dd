"""Coarser levels of labels and confidence; never by plain striding, which loses thin strands."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["halve_confidence", "halve_labels"]


@numba.njit(nogil=True, cache=True)
def halve_labels(labels):  # type: ignore[no-untyped-def]  # numba infers the types
    """The most frequent label of each 2 x 2 square; of equals the smaller (background is 255).

    ``(H, W)`` uint8 to ``(ceil(H / 2), ceil(W / 2))`` uint8; squares are cut at the edge.
    """
    height, width = labels.shape
    out = np.empty(((height + 1) // 2, (width + 1) // 2), np.uint8)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            bottom, right = min(2 * y + 2, height), min(2 * x + 2, width)
            best, votes = np.uint8(255), 0
            for i in range(2 * y, bottom):
                for j in range(2 * x, right):
                    label, count = labels[i, j], 0
                    for m in range(2 * y, bottom):
                        for n in range(2 * x, right):
                            count += labels[m, n] == label
                    if count > votes or (count == votes and label < best):
                        best, votes = label, count
            out[y, x] = best
    return out


def halve_confidence(confidence: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mean of each 2 x 2 square, rounded half up: ``(H, W)`` to half of it, rounded up, uint8."""
    height, width = confidence.shape
    even = np.pad(confidence, ((0, height % 2), (0, width % 2)), mode="edge").astype(np.uint16)
    total = even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]
    return ((total + 2) // 4).astype(np.uint8)
