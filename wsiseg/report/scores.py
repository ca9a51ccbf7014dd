"""Each class's score over a whole slide, coarse: probabilities where they were kept, else CAMs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsiseg.errors import StoreError
from wsiseg.report.overlay import sample_level
from wsiseg.store import SlideStore

__all__ = ["read_scores", "share_of"]

_MOST_CELLS = 1_000_000  # of one class; CAMs beyond are not read: the tiles' logits serve


def read_scores(store: SlideStore, factor: int) -> tuple[str, NDArray[np.uint8]]:
    """What the scores are, `probability`, `CAM` or nothing, and ``(K, h, w)`` uint8 in 255ths.

    0 is where no tissue is. Probabilities have a pixel for ``factor x factor`` of the raster, CAMs
    one for each of their cells, or one a tile on large slides.
    """
    if store.has_probabilities:
        return "probability", sample_level(store, store.read_probabilities, factor)
    try:
        store.finished("predict")
    except StoreError:
        return "", np.zeros((0, 1, 1), np.uint8)
    return "CAM", _lay_out_cams(store)


def _lay_out_cams(store: SlideStore) -> NDArray[np.uint8]:
    """Each tile's middle, which no other tile is nearer to, side by side."""
    grid = store.grid
    rows, cols = slice(0, grid.rows), slice(0, grid.cols)
    if grid.rows * grid.cols * store.cam_size[0] * store.cam_size[1] > _MOST_CELLS:
        fields = store.read_class_logits(rows, cols)[..., None, None]
    else:
        fields = store.read_cams(rows, cols)[0].astype(np.float32)
        height, width = (max(1, round(n * grid.stride / grid.tile)) for n in fields.shape[3:])
        y, x = (fields.shape[3] - height) // 2, (fields.shape[4] - width) // 2
        fields = fields[..., y : y + height, x : x + width]
    cells = fields.shape[3:]
    height, width = (
        max(1, round(side * n / grid.stride))
        for side, n in zip((grid.height, grid.width), cells, strict=True)
    )
    shares = [
        share_of(fields, which, store.cam_calibration)
        .transpose(0, 2, 1, 3)
        .reshape(grid.rows * cells[0], grid.cols * cells[1])[:height, :width]
        for which in range(len(store.cam_palette))
    ]
    return np.stack(shares)


def share_of(
    fields: NDArray[np.float32], which: int, calibration: NDArray[np.float32] | None
) -> NDArray[np.uint8]:
    """A channel's share of the softmax over ``(rows, cols, C, h, w)`` CAM logits, in 255ths.

    ``(rows, cols, h, w)`` uint8: 0 where there is no tile, which is NaN, at least 1 elsewhere.
    """
    if calibration is not None:
        scale, offset = calibration.T[:, :, None, None]
        fields = fields * scale + offset
    there = np.isfinite(fields[:, :, 0])
    fields = np.where(there[:, :, None], fields, 0)
    powers = np.exp(fields - fields.max(axis=2, keepdims=True))
    shares = powers[:, :, which] / powers.sum(axis=2)
    return np.where(there, np.maximum(1, np.rint(255 * shares)), 0).astype(np.uint8)
