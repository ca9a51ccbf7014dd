"""tile_slide: the slide at its working resolution, tissue only, into its store."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsiseg.compute import Progress, Step, run_steps
from wsiseg.config import Config, SlideConfig, TileConfig, digest_of
from wsiseg.geometry import Box, Mpp
from wsiseg.grid import TileGrid
from wsiseg.lock import hold
from wsiseg.model.scale import settle_scale
from wsiseg.slide import Slide, open_slide
from wsiseg.slide.scratch import scratch
from wsiseg.store import FORMAT, SlideStore

__all__ = ["plan_grid", "plan_tile", "tile_digest", "tile_slide", "working_mpp"]


def tile_slide(
    slide_path: str | Path,
    store_path: str | Path,
    config: Config,
    executor: Executor,
    progress: Progress | None = None,
    *,
    tissue: Path | None = None,
) -> SlideStore:
    """Find the tissue of a slide and stream its tiles into a store, block by block.

    Only the squares that a kept tile touches are read and written; all else is white. Blocks that
    were finished with the same settings are left as they are. A slide without tissue gives a store
    without pixels.

    Parameters
    ----------
    slide_path, store_path
        The slide's file, and the ``.zarr`` folder, or its URL, to make or to go on with.
    config
        Its `slide`, `tissue`, `tile` and `export` settings are used; where `tile` leaves µm/px or
        side open, also which checkpoint `predict` names.
    executor
        What the blocks run on; each worker holds one block of pixels and opens the slide itself.
    progress
        Told of every finished block.
    tissue
        GeoJSON file for the outline of the tissue: written if it is missing, read instead of
        detecting if the user changed it.

    Raises
    ------
    SlideOpenError, SlideReadError, MppError
        If the slide cannot be used; blocks that were finished stay.
    StoreError
        If `store_path` holds something else.
    GeoJsonError
        If the user's outline cannot be read.
    CheckpointError
        If the checkpoint that decides the scale is missing or is none.
    """
    with hold(store_path):
        store, step = plan_tile(slide_path, store_path, config, tissue=tissue)
        run_steps(executor, [step], progress)
    return store


def plan_tile(
    slide_path: str | Path, store_path: str | Path, config: Config, *, tissue: Path | None = None
) -> tuple[SlideStore, Step]:
    """Make the store, settle the tissue, and tell which blocks `tile_slide` has to read.

    Takes what `tile_slide` takes and raises what it raises, but for `SlideReadError` in a block.
    """
    # Here, so that worker processes, which have no use for it, start in half the time.
    from wsiseg.tissue import kept_tiles, settle_tissue

    config = settle_scale(config)
    with open_slide(slide_path, config.slide) as slide:
        grid, mpp = plan_grid(slide, config.tile)
        store = SlideStore.create(store_path, grid, mpp, _describe(slide), config.tile.codec)
        settle_tissue(slide, store, config, tissue)
    digest = tile_digest(store, config)
    squares = _needed_squares(grid, kept_tiles(store, config.tissue))
    pending = store.pending("tile", digest)
    busy = [block for block in pending if _block_squares(grid, squares, block).any()]
    for block in sorted(set(pending) - set(busy)):
        store.begin("tile", block)
        store.erase_image(block)
        store.mark_done("tile", block, digest)
    work = partial(
        _tile_block, slide_path=Path(slide_path), store_path=store.location, config=config.slide,
        squares=squares, digest=digest,
    )  # fmt: skip
    return store, Step("tile", digest, grid.n_blocks, busy, work)


def tile_digest(store: SlideStore, config: Config) -> str:
    """Hex sha256 of all that a store's pixels hang on: slide, reader, resolution, grid, tissue.

    Raises
    ------
    StoreError
        If the store holds no tissue mask yet.
    """
    mask, mask_mpp, _ = store.read_tissue()
    tissue = [hashlib.sha256(np.packbits(mask).tobytes()).hexdigest(), list(mask.shape), mask_mpp]
    reader = [store.slide["reader"], config.slide.scaled_decode]
    slide = [store.slide["identity"], store.slide["mpp"], reader]
    raster = [store.mpp, store.meta["grid"]]
    return digest_of("tile", FORMAT, slide, raster, tissue, config.tissue.min_fraction)


def working_mpp(slide: Slide, config: TileConfig) -> Mpp:
    """The µm/px at which a slide is tiled.

    The whole multiple of the slide's own µm/px that is nearest to ``config.mpp``, if it lies within
    ``config.mpp_tolerance`` of it on both axes: pixels are then averaged, never interpolated. Else
    ``config.mpp`` itself.
    """
    wanted = config.tiling.mpp
    multiple = round(wanted / slide.mpp.x)
    furthest = max(abs(multiple * own - wanted) for own in slide.mpp)
    if multiple >= 1 and furthest <= config.mpp_tolerance * wanted:
        return Mpp(multiple * slide.mpp.x)
    return Mpp(wanted)


def plan_grid(slide: Slide, config: TileConfig) -> tuple[TileGrid, Mpp]:
    """The tiles of a slide, and the µm/px of their raster.

    Raises
    ------
    GeometryError
        If tile, stride and block do not fit each other.
    """
    mpp = working_mpp(slide, config)
    size = slide.raster_size(mpp)
    _, tile, stride, block = config.tiling
    return TileGrid(size.height, size.width, tile, stride, block), mpp


def _describe(slide: Slide) -> dict[str, Any]:
    return {
        "name": slide.path.name,
        "path": str(slide.path.absolute()),
        "identity": slide.identity,
        "size": list(slide.size),
        "mpp": list(slide.mpp),
        "mpp_source": slide.mpp_source,
        "bounds": list(slide.bounds),
        "vendor": slide.vendor,
        "reader": slide.reader,
    }


def _needed_squares(grid: TileGrid, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which squares of ``grid.tile`` px, the store's chunks, a kept tile touches: ``(n, m)``."""
    squares = np.zeros((-(-grid.height // grid.tile), -(-grid.width // grid.tile)), bool)
    rows, cols = np.nonzero(kept)
    for down in (0, grid.tile - 1):
        for right in (0, grid.tile - 1):
            row = (rows * grid.stride + down) // grid.tile
            col = (cols * grid.stride + right) // grid.tile
            inside = (row < squares.shape[0]) & (col < squares.shape[1])
            squares[row[inside], col[inside]] = True
    return squares


def _block_squares(grid: TileGrid, squares: NDArray[np.bool_], block: int) -> NDArray[np.bool_]:
    row, col = divmod(block, grid.block_cols)
    n = grid.block // grid.tile
    return squares[row * n : (row + 1) * n, col * n : (col + 1) * n]


def _tile_block(
    block: int,
    *,
    slide_path: Path,
    store_path: str | Path,
    config: SlideConfig,
    squares: NDArray[np.bool_],
    digest: str,
) -> None:
    """Read and write one block, and mark it."""
    store = SlideStore(store_path)
    box = store.grid.block_box(block)
    wanted = _block_squares(store.grid, squares, block)
    pixels = scratch.array("block", (box.height, box.width, 3))
    pixels[:] = 255
    with open_slide(slide_path, config) as slide:
        for part in _parts(wanted, store.grid.tile, box):
            slide.read(part, store.mpp, pixels[part.slices(box)])
    store.begin("tile", block)
    store.write_image(block, pixels, wanted)
    store.mark_done("tile", block, digest)


def _parts(squares: NDArray[np.bool_], side: int, block: Box) -> Iterator[Box]:
    """The set `squares` of a block as few boxes: runs along rows, stacked where they repeat."""
    left = squares.copy()
    for row, col in np.argwhere(squares).tolist():
        if not left[row, col]:
            continue
        width = _run_length(left[row : row + 1, col:].all(axis=0))
        height = _run_length(left[row:, col : col + width].all(axis=1))
        left[row : row + height, col : col + width] = False
        part = Box(block.x + col * side, block.y + row * side, width * side, height * side)
        yield part.intersect(block)


def _run_length(flags: Any) -> int:
    return len(flags) if flags.all() else int(flags.argmin())
