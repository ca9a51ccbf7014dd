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
    shares = _divide(*_raise(fields, store.cam_calibration))[:, :, : len(store.cam_palette)]
    laid = shares.transpose(2, 0, 3, 1, 4).reshape(-1, grid.rows * cells[0], grid.cols * cells[1])
    return laid[:, :height, :width]


def share_of(
    fields: NDArray[np.float32], which: int, calibration: NDArray[np.float32] | None
) -> NDArray[np.uint8]:
    """A channel's share of the softmax over ``(rows, cols, C, h, w)`` CAM logits, in 255ths.

    ``(rows, cols, h, w)`` uint8: 0 where there is no tile, which is NaN, at least 1 elsewhere.
    """
    there, powers = _raise(fields, calibration)
    return _divide(there, powers, slice(which, which + 1))[:, :, 0]


def _raise(
    fields: NDArray[np.float32], calibration: NDArray[np.float32] | None
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Where there is a tile, ``(rows, cols, h, w)``, and the powers of e of `fields`."""
    if calibration is not None:
        scale, offset = calibration.T[:, :, None, None]
        fields = fields * scale + offset
    there = np.isfinite(fields[:, :, 0])
    powers = np.where(there[:, :, None], fields, 0)
    powers -= powers.max(axis=2, keepdims=True)
    return there, np.exp(powers, out=powers)


def _divide(
    there: NDArray[np.bool_], powers: NDArray[np.float32], which: slice = slice(None)
) -> NDArray[np.uint8]:
    """Shares ``(rows, cols, n, h, w)`` of some channels, in 255ths."""
    shares = powers[:, :, which] * (255 / powers.sum(axis=2, keepdims=True))
    # A share is at least 1, so that it is seen where tiles are.
    shares = np.maximum(1, np.rint(shares, out=shares), out=shares)
    return np.where(there[:, :, None], shares, 0).astype(np.uint8)
