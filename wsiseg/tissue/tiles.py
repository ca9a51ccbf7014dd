"""Apply a tissue mask to the tiles and pixels of a raster."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsiseg.config import TissueConfig
from wsiseg.errors import StoreError
from wsiseg.geometry import Box
from wsiseg.grid import TileGrid
from wsiseg.store import SlideStore

__all__ = [
    "check_read",
    "kept_tiles",
    "mask_window",
    "sample_mask",
    "sample_tissue",
    "tile_fractions",
]

Mask = NDArray[np.bool_]


def tile_fractions(mask: Mask, mask_mpp: float, grid: TileGrid, mpp: float) -> NDArray[np.float32]:
    """Return the fraction of each tile's window that is tissue.

    Parameters
    ----------
    mask
        ``(h, w)`` bool at `mask_mpp` µm/px, with the raster's origin.
    grid
        Tiles of the raster at `mpp` µm/px.

    Returns
    -------
    ``(rows, cols)`` float32 in [0, 1], exact where mask pixels lie across a tile's edge; parts
    beyond the raster count as no tissue. 0 only if a tile contains no tissue at all.
    """
    scale = mpp / mask_mpp
    # One axis after the other: sums up to the tiles' edges, interpolated within mask pixels.
    high = _edge_sums(mask, np.int32, grid.rows, grid.height, grid, scale)
    sums = _edge_sums(high.T, np.float64, grid.cols, grid.width, grid, scale).T
    area = (grid.tile * scale) ** 2
    # Differences of sums leave a residue where there is no tissue; a sliver of a pixel is larger.
    return np.where(sums > 1e-6, np.minimum(sums / area, 1), 0).astype(np.float32)


def _edge_sums(
    values: NDArray[Any], sums: type, count: int, length: int, grid: TileGrid, scale: float
) -> NDArray[np.float64]:
    """Integrate `values` ``(n, m)`` along the first axis over each tile: ``(count, m)``.

    `sums` is the dtype in which the sums are exact.
    """
    totals: NDArray[Any] = np.zeros((len(values) + 1, values.shape[1]), sums)
    np.cumsum(values, axis=0, dtype=sums, out=totals[1:])
    first = np.arange(count) * grid.stride
    edges = np.stack([first, np.minimum(first + grid.tile, length)]) * scale
    edges = np.minimum(edges, len(values))
    whole = np.minimum(edges.astype(np.int64), len(values) - 1)
    part = (edges - whole)[..., None]
    at = totals[whole] * (1 - part) + totals[whole + 1] * part
    return np.asarray(at[1] - at[0])


def kept_tiles(store: SlideStore, config: TissueConfig) -> Mask:
    """Return which tiles are kept: ``(rows, cols)`` bool.

    A tile is kept if at least ``config.min_fraction`` of it is tissue, and it has any.

    Raises
    ------
    StoreError
        If `store` holds no tissue mask yet.
    """
    mask, mask_mpp, _ = store.read_tissue()
    fractions = tile_fractions(mask, mask_mpp, store.grid, store.mpp)
    return np.asarray((fractions >= config.min_fraction) & (fractions > 0))


def check_read(store: SlideStore, config: TissueConfig, kept: Mask) -> None:
    """Refuse `kept` tiles that `wsiseg tile` left out, as it kept fewer: their pixels are white.

    Raises
    ------
    StoreError
        If there are any.
    """
    read = store.min_fraction
    if read is None or read <= config.min_fraction:
        return
    then = kept_tiles(store, config.model_copy(update={"min_fraction": read}))
    if left_out := int((kept & ~then).sum()):
        raise StoreError(
            f"{store.path}: {left_out} tiles that tissue.min_fraction = {config.min_fraction:g} "
            f"keeps were not read, as it was tiled with {read:g}; give that here as well, or run "
            f"`wsiseg tile` again with this one"
        )


def sample_mask(mask: Mask, mask_mpp: float, box: Box, mpp: float) -> Mask:
    """Sample the mask on the raster, at each raster pixel's centre.

    Parameters
    ----------
    mask
        ``(h, w)`` bool at `mask_mpp` µm/px.
    box
        Window of the raster at `mpp` µm/px; may lie outside.

    Returns
    -------
    ``(box.height, box.width)`` bool, False outside the mask.
    """
    return _sample(mask, box, mask_mpp / mpp, (0, 0))


def sample_tissue(store: SlideStore, box: Box) -> Mask:
    """Sample a store's mask as `sample_mask` does, reading only the part that `box` needs.

    Raises
    ------
    StoreError
        If `store` holds no tissue mask yet.
    """
    if box.empty:
        return np.zeros((box.height, box.width), bool)
    ratio = store.tissue_mpp / store.mpp
    window = mask_window(box, ratio)
    return _sample(store.read_tissue(window)[0], box, ratio, (window.y, window.x))


def mask_window(box: Box, ratio: float) -> Box:
    """Return the pixels of a mask that `sample_mask` reads for a box that is not empty.

    `ratio` is raster pixels per mask pixel.
    """
    (top, bottom), (left, right) = (
        _mask_index(start, start + length, ratio)[[0, -1]].tolist()
        for start, length in ((box.y, box.height), (box.x, box.width))
    )
    return Box(left, top, right + 1 - left, bottom + 1 - top)


def _sample(mask: Mask, box: Box, ratio: float, corner: tuple[int, int]) -> Mask:
    """Sample `mask`, whose pixel (0, 0) is the whole mask's `corner` (row, column), on `box`."""
    rows = _mask_index(box.y, box.bottom, ratio) - corner[0]
    cols = _mask_index(box.x, box.right, ratio) - corner[1]
    out = np.zeros((box.height, box.width), bool)
    in_rows = np.flatnonzero((rows >= 0) & (rows < mask.shape[0]))
    in_cols = np.flatnonzero((cols >= 0) & (cols < mask.shape[1]))
    if len(in_rows) and len(in_cols):
        # Columns first, as the mask has few rows: then whole rows are copied.
        columns = mask[:, cols[in_cols]]
        inside = slice(in_cols[0], in_cols[-1] + 1)
        out[in_rows[0] : in_rows[-1] + 1, inside] = columns[rows[in_rows]]
    return out


def _mask_index(start: int, stop: int, ratio: float) -> NDArray[np.int64]:
    """Return the mask's row or column under the centre of each raster pixel."""
    return np.asarray(np.floor((np.arange(start, stop) + 0.5) / ratio).astype(np.int64))
