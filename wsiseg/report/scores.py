"""Coarse scores of each class over a whole slide: probabilities if stored, otherwise CAMs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsiseg.errors import StoreError
from wsiseg.report.overlay import sample_level
from wsiseg.store import SlideStore

__all__ = ["read_scores", "share_of"]

_MAX_CELLS = 1_000_000  # per class; on larger slides, class logits replace CAMs


def read_scores(store: SlideStore, factor: int) -> tuple[str, NDArray[np.uint8]]:
    """Read the kind of scores, `probability`, `CAM` or empty, and ``(K, h, w)`` uint8 in 255ths.

    0 means no tissue. Probabilities have a pixel per ``factor x factor`` of the raster; CAMs have
    one per cell, or one per tile on large slides.
    """
    if store.has_probabilities:
        return "probability", sample_level(store, store.read_probabilities, factor)
    try:
        store.finished("predict")
    except StoreError:
        return "", np.zeros((0, 1, 1), np.uint8)
    return "CAM", _lay_out_cams(store)


def _lay_out_cams(store: SlideStore) -> NDArray[np.uint8]:
    """Lay out the central part of each tile, to which no other tile is closer, side by side."""
    grid = store.grid
    rows, cols = slice(0, grid.rows), slice(0, grid.cols)
    if grid.rows * grid.cols * store.cam_size[0] * store.cam_size[1] > _MAX_CELLS:
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
    shares = _normalise(*_exponentiate(fields, store.cam_calibration))
    layout = shares[:, :, : len(store.cam_palette)].transpose(2, 0, 3, 1, 4)
    layout = layout.reshape(-1, grid.rows * cells[0], grid.cols * cells[1])
    return layout[:, :height, :width]


def share_of(
    fields: NDArray[np.float32], channel: int, calibration: NDArray[np.float32] | None
) -> NDArray[np.uint8]:
    """Return a channel's softmax probability, in 255ths, of ``(rows, cols, C, h, w)`` CAM logits.

    ``(rows, cols, h, w)`` uint8: 0 where there is no tile (NaN), at least 1 elsewhere.
    """
    mask, exponentials = _exponentiate(fields, calibration)
    return _normalise(mask, exponentials, slice(channel, channel + 1))[:, :, 0]


def _exponentiate(
    fields: NDArray[np.float32], calibration: NDArray[np.float32] | None
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Return the mask of tiles ``(rows, cols, h, w)``, and e to the power of `fields`."""
    if calibration is not None:
        scale, offset = calibration.T[:, :, None, None]
        fields = fields * scale + offset
    mask = np.isfinite(fields[:, :, 0])
    exponents = np.where(mask[:, :, None], fields, 0)
    exponents -= exponents.max(axis=2, keepdims=True)
    return mask, np.exp(exponents, out=exponents)


def _normalise(
    mask: NDArray[np.bool_], exponentials: NDArray[np.float32], channels: slice = slice(None)
) -> NDArray[np.uint8]:
    """Return the probabilities ``(rows, cols, n, h, w)`` of some channels, in 255ths."""
    shares = exponentials[:, :, channels] * (255 / exponentials.sum(axis=2, keepdims=True))
    # At least 1, to show where tiles are.
    shares = np.maximum(1, np.rint(shares, out=shares), out=shares)
    return np.where(mask[:, :, None], shares, 0).astype(np.uint8)
