"""Run the model over a slide's tiles: CAM logits and class logits, block by block."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wsiseg.compute import Progress, Step, run_steps
from wsiseg.config import Config, PredictConfig, digest_of
from wsiseg.errors import ConfigError, ModelError, WsisegWarning
from wsiseg.geometry import Box
from wsiseg.grid import TileGrid
from wsiseg.lock import hold
from wsiseg.model.cam import augmented_cams
from wsiseg.model.device import autocast, blocks_at_once, lend_device, planning_device
from wsiseg.model.feed import feed
from wsiseg.model.pinned import PinnedSource, pin_source
from wsiseg.model.scale import Scale, describe_mismatch, settle_scale
from wsiseg.model.source import CamSource
from wsiseg.model.threads import fixed_threads
from wsiseg.store import FORMAT, SlideStore
from wsiseg.tissue import check_read, kept_tiles
from wsiseg.windows import plan_windows

__all__ = [
    "cam_side",
    "check_source",
    "context_of",
    "plan_predict",
    "predict_digest",
    "predict_tiles",
    "run_model",
]

_STEP = "predict"
_VERSION = 1
"""Version of the arithmetic here and in `wsiseg.model`; a change makes digests differ, so that work
is redone."""
_SPACING, _ENOUGH = 8, 64
"""One tile in eight is compared with the training patches, or more while 64 are not reached."""

Array = NDArray[np.float32]
_Tile = tuple[int, int]


def predict_tiles(
    store_path: str | Path, config: Config, executor: Executor, progress: Progress | None = None
) -> str:
    """Write the CAM and class logits of every tile that holds tissue.

    Each block reads its own tiles in batches of fixed composition and, on a CPU, computes with one
    thread, so that every executor gives the same bytes.

    Returns
    -------
    The digest that the blocks are marked with.

    Raises
    ------
    StoreError
        If the store is missing, its tiles are not finished, or some that `config` keeps were not
        read.
    CheckpointError
        If the checkpoint, or the encoder of the prompts, cannot be used.
    ConfigError
        If the tiles do not fit the encoder, the prompt file is invalid, or the device does not
        exist.
    MissingDependencyError
        If the encoder needs a package that is not installed; gives the install line.
    ModelError
        If the model's output is not finite, or too large to be stored.

    Warns
    -----
    WsisegWarning
        If the tiles' µm/px or side differs from the training patches' by more than 20 %.
    """
    with hold(store_path) as run:
        tile, tiles = SlideStore(store_path).digests("tile")
        step = plan_predict(store_path, config, tile, tiles, run)
        run_steps(executor, [step], progress)
    return step.digest


def plan_predict(
    store_path: str | Path, config: Config, tile: str, tiles: Sequence[str], run: str = ""
) -> Step:
    """Plan what `predict_tiles` has to do once tiles of digest `tile`, `tiles` by block, exist.

    `run` is the token of the run that holds the store. The device need not be on this machine: a
    block opens it where it runs. Otherwise raises and warns as `predict_tiles` does.
    """
    store, settings = SlideStore(store_path), config.predict
    pinned = pin_source(settings)
    source = pinned.load(planning_device(settings.device))
    side = cam_side(store.grid.tile, source)
    reach = _reach(settings, source)
    _check_scale(store, source)
    kept = kept_tiles(store, config.tissue)
    check_read(store, config.tissue, kept)  # before the store is said to be of another model
    store.create_cams(
        source.palette, side, side, channels=source.channels, calibration=source.calibration,
        source=pinned.identity, mpp=source.mpp, background=source.background,
    )  # fmt: skip
    digests = _block_digests(store.grid, config, tiles, pinned, reach, kept)
    digest, pending = store.plan(_STEP, digests, tile)
    work = partial(_predict_block, store_path, run, settings, kept, pinned)
    needs = partial(_needed_blocks, store.grid, reach)
    return Step(
        _STEP, digest, store.grid.n_blocks, pending, work, needs, gpu=True,
        waits=blocks_at_once(settings.device), digests=digests,
    )  # fmt: skip


def check_source(config: Config) -> None:
    """Reject settings with which no slide could be predicted; needs no store.

    Raises
    ------
    CheckpointError, ConfigError, MissingDependencyError
        As `predict_tiles` does.
    """
    source = pin_source(config.predict).load(planning_device(config.predict.device))
    cam_side(settle_scale(config).tile.tiling.tile, source)
    context_of(config.predict, source)


def predict_digest(store_path: str | Path, config: Config) -> str:
    """Return the digest of what determines the CAMs: tiles, checkpoint bytes and settings.

    With prompts, the prompt file's content and the encoder's weights replace the checkpoint.

    Raises
    ------
    StoreError
        If the store is missing or its tiles are not finished.
    CheckpointError
        If the checkpoint is missing, or not a checkpoint.
    """
    store, pinned = SlideStore(store_path), pin_source(config.predict)
    reach = _reach(config.predict, pinned.load(planning_device(config.predict.device)))
    kept = kept_tiles(store, config.tissue)
    tiles = store.digests("tile")[1]
    return digest_of(_block_digests(store.grid, config, tiles, pinned, reach, kept))


def _block_digests(
    grid: TileGrid, config: Config, tiles: Sequence[str], pinned: PinnedSource, reach: int,
    kept: NDArray[np.bool_],
) -> list[str]:  # fmt: skip
    """Return the digest of each block's inputs: which tiles are kept, and the pixels they see."""
    settings = config.predict
    # The composition of a batch may affect the rounding of sums, so its size counts.
    common = digest_of(
        _STEP, FORMAT, _VERSION, pinned.identity, settings.tta, settings.batch_size,
        settings.precision, reach,
    )  # fmt: skip
    if (spacing := _space_samples(kept)) != _SPACING:
        common = digest_of(common, spacing)
    digests = []
    for block in range(grid.n_blocks):
        flags = [bool(kept[tile]) for tile in grid.block_tiles(block)]
        needed = {block, *(other for _, other in _needed_blocks(grid, reach, block))}
        digests.append(digest_of(common, block, flags, [tiles[other] for other in sorted(needed)]))
    return digests


def _needed_blocks(grid: TileGrid, reach: int, block: int) -> Iterator[tuple[str, int]]:
    """Yield the blocks of pixels under a block's tiles and within `reach` of them."""
    owned = list(grid.block_tiles(block))
    if owned:
        first, last = grid.tile_box(*owned[0]), grid.tile_box(*owned[-1])
        around = Box(first.x, first.y, last.right - first.x, last.bottom - first.y)
        yield from (("tile", other) for other in grid.blocks_touching(around.grow(reach)))


def _predict_block(
    store_path: str | Path, run: str, settings: PredictConfig, kept: NDArray[np.bool_],
    pinned: PinnedSource, block: int, digest: str,
) -> None:  # fmt: skip
    with lend_device(settings.device, block) as device:
        _predict_on(pinned.load(device), SlideStore(store_path, run), settings, kept, block, digest)


def _predict_on(
    source: CamSource, store: SlideStore, settings: PredictConfig, kept: NDArray[np.bool_],
    block: int, digest: str,
) -> None:  # fmt: skip
    if store.is_done(_STEP, block, digest):
        return
    store.begin(_STEP, block)
    owned = list(store.grid.block_tiles(block))
    if owned:  # a block at the raster's edge may own none
        tiles = [tile for tile in owned if kept[tile]]
        side = cam_side(store.grid.tile, source)
        (top, left), (bottom, right) = owned[0], owned[-1]
        shape = (bottom - top + 1, right - left + 1, source.channels)
        cams = np.full((*shape, side, side), np.nan, np.float16)
        logits = np.full(shape, np.nan, np.float32)
        distances = np.full(shape[:2], np.nan, np.float32)
        spacing = _space_samples(kept)
        for batch, outputs in _predict_batches(store, source, tiles, settings, spacing):
            at = tuple(np.subtract(batch, (top, left)).T)
            _check_finite(store, settings, batch, outputs)
            cams[at], logits[at], distances[at] = outputs
        measured = np.isfinite(distances).any()
        store.write_cams(block, cams, logits, distances if measured else None)
    store.mark_done(_STEP, block, digest)


def _space_samples(kept: NDArray[np.bool_]) -> int:
    """Return n if one tile in n of those in `kept` is to be compared with the training patches."""
    return int(np.clip(np.count_nonzero(kept) // _ENOUGH, 1, _SPACING))


def _check_finite(
    store: SlideStore,
    settings: PredictConfig,
    tiles: list[_Tile],
    outputs: tuple[Array, Array, Array],
) -> None:
    """Reject outputs that would be stored as infinity or NaN, which would pass for no tissue."""
    largest = np.finfo(np.float16).max
    storable = np.abs(outputs[0]).max(axis=(1, 2, 3)) <= largest
    bad = ~(storable & np.isfinite(outputs[1]).all(axis=1))  # a comparison with NaN is false
    if bad.any():
        row, col = tiles[int(bad.argmax())]
        raise ModelError(
            f"{store.path}: the model's CAM of tile row {row}, column {col} holds values that "
            f"are not finite or above {largest:g}; use predict.precision=float32 (it was "
            f"{settings.precision}), or another checkpoint"
        )


def _predict_batches(
    store: SlideStore, source: CamSource, tiles: list[_Tile], settings: PredictConfig, spacing: int
) -> Iterator[tuple[list[_Tile], tuple[Array, Array, Array]]]:
    """Yield the tiles of one block in batches, with their CAMs, class logits and distances."""
    if not tiles:
        return
    grid = store.grid
    boxes = [grid.tile_box(*tile) for tile in tiles]
    x, y = min(box.x for box in boxes), min(box.y for box in boxes)
    right, bottom = max(box.right for box in boxes), max(box.bottom for box in boxes)
    around = Box(x, y, right - x, bottom - y).grow(_reach(settings, source))
    pixels = store.read_image(around)
    if context_of(settings, source):
        batches = _predict_windows(grid, source, tiles, settings, pixels, around)
    else:
        batches = _predict_single(grid, source, tiles, settings, pixels, around)
    for batch, cams, logits in batches:
        images = np.stack([pixels[grid.tile_box(*tile).slices(around)] for tile in batch])
        sampled = np.array([(3 * row + col) % spacing == 0 for row, col in batch])
        yield batch, (cams, logits, _measure_distances(source, images, sampled))


def _predict_single(
    grid: TileGrid, source: CamSource, tiles: list[_Tile], settings: PredictConfig,
    pixels: NDArray[np.uint8], around: Box,
) -> Iterator[tuple[list[_Tile], Array, Array]]:  # fmt: skip
    """Predict each tile by itself, row by row."""
    size = settings.batch_size
    batches = [tiles[start : start + size] for start in range(0, len(tiles), size)]
    stacks = (
        np.stack([pixels[grid.tile_box(*tile).slices(around)] for tile in batch])
        for batch in batches
    )
    for batch, images in zip(batches, feed(stacks, source.device), strict=True):
        yield batch, *_run(source, images, settings)


def _predict_windows(
    grid: TileGrid, source: CamSource, tiles: list[_Tile], settings: PredictConfig,
    pixels: NDArray[np.uint8], around: Box,
) -> Iterator[tuple[list[_Tile], Array, Array]]:  # fmt: skip
    """Predict neighbouring tiles with their surroundings; each gets its part of the CAM."""
    stride, margin = source.stride, context_of(settings, source)
    side = cam_side(grid.tile, source)
    for window in plan_windows(grid, tiles, margin, stride, source.sides.step):
        (image,) = feed([pixels[window.box.slices(around)][None]], source.device)
        with _computing(source), autocast(source.device, settings.precision):
            whole = _look(source, image, settings)
            cells = [window.cell(grid, tile, stride) for tile in window.tiles]
            seen = torch.stack([whole[0, :, r : r + side, c : c + side] for r, c in cells])
            outputs = _split(source, seen)
        yield list(window.tiles), *outputs


def _measure_distances(
    source: CamSource, images: NDArray[np.uint8], sampled: NDArray[np.bool_]
) -> Array:
    """Measure how far tiles are from the training patches: ``(B,)`` float32.

    NaN for tiles not in `sampled`, and for all if the source does not know its training patches.
    """
    distances = np.full(len(images), np.nan, np.float32)
    if sampled.any():
        (batch,) = feed([images[sampled]], source.device)
        with _computing(source):
            measured = source.distance(batch)
        if measured is not None:
            distances[sampled] = measured.float().cpu().numpy()
    return distances


def run_model(
    source: CamSource, images: NDArray[np.uint8], settings: PredictConfig
) -> tuple[Array, Array]:
    """Return CAM logits ``(B, C, h, w)`` and class logits ``(B, C)`` of ``(B, H, W, 3)`` tiles.

    Both are float32; C is the number of the source's channels.
    """
    (batch,) = feed([images], source.device)
    return _run(source, batch, settings)


def _run(source: CamSource, images: torch.Tensor, settings: PredictConfig) -> tuple[Array, Array]:
    with _computing(source), autocast(source.device, settings.precision):
        return _split(source, _look(source, images, settings))


def _look(source: CamSource, images: torch.Tensor, settings: PredictConfig) -> torch.Tensor:
    return augmented_cams(source.look, images, source.mean, settings.tta).float()


def _split(source: CamSource, seen: torch.Tensor) -> tuple[Array, Array]:
    """Return the CAMs and the class logits of what a source saw."""
    return seen[:, : source.channels].cpu().numpy(), source.pool(seen).cpu().numpy()


@contextmanager
def _computing(source: CamSource) -> Iterator[None]:
    """Disable gradients, and on a CPU use one thread, so that parallel blocks change no result."""
    threads = fixed_threads(1) if source.device.type == "cpu" else nullcontext()
    with threads, torch.inference_mode():
        yield


def cam_side(tile: int, source: CamSource) -> int:
    """Return the number of cells along one side of a tile's CAM.

    Raises
    ------
    ConfigError
        If the source does not accept images of side `tile`.
    """
    if not source.sides.fits(tile):
        raise ConfigError(
            f"tile {tile} does not fit {source.name}, which takes {source.sides}; the nearest side "
            f"that works is {source.sides.nearest(tile)}"
        )
    return tile // source.stride


def _reach(settings: PredictConfig, source: CamSource) -> int:
    """Return how many pixels around a tile its window may cover: the context, and a last cell."""
    margin = context_of(settings, source)
    return margin + source.sides.step if margin else 0


def context_of(settings: PredictConfig, source: CamSource) -> int:
    """Return how many pixels around each tile the source sees.

    Raises
    ------
    ConfigError
        If it can only see tiles one by one, or the number is not a multiple of its cells.
    """
    if settings.context is None:
        return source.context
    if settings.context and not source.context:
        raise ConfigError(
            f"predict.context = {settings.context}, but {source.name} sees tiles one by one; use 0"
        )
    if settings.context % source.sides.least:
        raise ConfigError(
            f"predict.context = {settings.context} does not fit {source.name}; use a multiple of "
            f"{source.sides.least}, such as {source.context}, or 0"
        )
    return settings.context


def _check_scale(store: SlideStore, source: CamSource) -> None:
    """Warn if tiles cover more or less tissue than the patches that the model was trained on."""
    trained = Scale(source.mpp, source.tile)
    for line in describe_mismatch(store.mpp, store.grid.tile, trained):
        warnings.warn(f"{store.path}: {line}", WsisegWarning, stacklevel=3)
