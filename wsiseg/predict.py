"""The model over a slide's tiles: CAM logits and class logits, block by block."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wsiseg.compute import Progress, Step, run_steps
from wsiseg.config import Config, PredictConfig, digest_of
from wsiseg.errors import CheckpointError, ConfigError
from wsiseg.geometry import Box
from wsiseg.grid import TileGrid
from wsiseg.lock import hold
from wsiseg.model.cam import augmented_cams
from wsiseg.model.checkpoint import CheckpointInfo, load_checkpoint, read_info
from wsiseg.model.construct import ConStruct
from wsiseg.model.device import autocast, open_device, planning_device
from wsiseg.model.encoders import Encoder
from wsiseg.model.threads import fixed_threads
from wsiseg.store import FORMAT, SlideStore
from wsiseg.tissue import kept_tiles

__all__ = [
    "cam_side",
    "open_device",
    "plan_predict",
    "predict_digest",
    "predict_tiles",
    "run_model",
]

_STEP = "predict"
_TOLERANCE = 0.2  # of the training scale, before a user is warned

Array = NDArray[np.float32]
_Tile = tuple[int, int]


def predict_tiles(
    store_path: str | Path, config: Config, executor: Executor, progress: Progress | None = None
) -> str:
    """Write the CAM and class logits of every tile that holds tissue.

    Each block reads its own tiles in batches of fixed composition; on a CPU it computes with one
    thread, so that every executor gives the same bytes.

    Returns
    -------
    The digest that the blocks are marked with.

    Raises
    ------
    StoreError
        If the store is missing or its tiles are not finished.
    CheckpointError
        If the checkpoint cannot be used.
    ConfigError
        If the tiles do not fit the encoder, or the device does not exist.

    Warns
    -----
    UserWarning
        If the tiles' µm/px or side is more than 20 % off the training patches'.
    """
    with hold(store_path):
        step = plan_predict(store_path, config, SlideStore(store_path).finished("tile"))
        run_steps(executor, [step], progress)
    return step.digest


def plan_predict(store_path: str | Path, config: Config, tiles: str) -> Step:
    """What `predict_tiles` has to do once there are tiles of the digest `tiles`.

    The device need not be here: a block opens it where it runs. Else raises what `predict_tiles`
    raises, and warns as it does.
    """
    store, settings = SlideStore(store_path), config.predict
    digest, sha256 = _identify(config, tiles)
    model, info = _load_model(settings, sha256, planning_device(settings.device))
    side = cam_side(store.grid.tile, model.encoder, info)
    _check_scale(store, info)
    store.create_cams(info.palette, side, side)
    pending = store.pending(_STEP, digest)
    kept = kept_tiles(store, config.tissue)
    work = partial(_predict_block, store_path, settings, kept, sha256, digest)
    needs = partial(_needed_blocks, store.grid)
    return Step(_STEP, digest, store.grid.n_blocks, pending, work, needs, gpu=True)


def predict_digest(store_path: str | Path, config: Config) -> str:
    """Digest of what decides the CAMs: the tiles, the checkpoint's bytes and the settings.

    Raises
    ------
    StoreError
        If the store is missing or its tiles are not finished.
    CheckpointError
        If the checkpoint is missing or not one.
    """
    return _identify(config, SlideStore(store_path).finished("tile"))[0]


def _identify(config: Config, tiles: str) -> tuple[str, str]:
    """The step's digest, and the checkpoint's sha256 that it hangs on, given the tiles' digest."""
    settings = config.predict
    sha256 = read_info(settings.checkpoint).sha256
    # The composition of a batch may decide how a sum rounds, so its size counts.
    digest = digest_of(
        _STEP, FORMAT, tiles, sha256, config.tissue.min_fraction, settings.tta, settings.batch_size,
        settings.precision,
    )  # fmt: skip
    return digest, sha256


def _needed_blocks(grid: TileGrid, block: int) -> Iterator[tuple[str, int]]:
    """The blocks of pixels under a block's tiles."""
    owned = list(grid.block_tiles(block))
    if owned:
        first, last = grid.tile_box(*owned[0]), grid.tile_box(*owned[-1])
        around = Box(first.x, first.y, last.right - first.x, last.bottom - first.y)
        yield from (("tile", other) for other in grid.blocks_touching(around))


def _predict_block(
    store_path: str | Path, settings: PredictConfig, kept: NDArray[np.bool_], sha256: str,
    digest: str, block: int,
) -> None:  # fmt: skip
    store = SlideStore(store_path)
    store.begin(_STEP, block)
    model, info = _load_model(settings, sha256, open_device(settings.device))
    owned = list(store.grid.block_tiles(block))
    if owned:  # a block at the raster's edge may own none
        tiles = [tile for tile in owned if kept[tile]]
        side = cam_side(store.grid.tile, model.encoder, info)
        (top, left), (bottom, right) = owned[0], owned[-1]
        shape = (bottom - top + 1, right - left + 1, len(info.names))
        cams = np.full((*shape, side, side), np.nan, np.float16)
        logits = np.full(shape, np.nan, np.float32)
        for batch, found in _predict_batches(store, model, tiles, settings):
            at = tuple(np.subtract(batch, (top, left)).T)
            cams[at], logits[at] = found
        store.write_cams(block, cams, logits)
    store.mark_done(_STEP, block, digest)


def _predict_batches(
    store: SlideStore, model: ConStruct, tiles: list[_Tile], settings: PredictConfig
) -> Iterator[tuple[list[_Tile], tuple[Array, Array]]]:
    """Tiles of one block in batches, row by row, with their CAMs and class logits."""
    if not tiles:
        return
    grid = store.grid
    boxes = [grid.tile_box(*tile) for tile in tiles]
    x, y = min(box.x for box in boxes), min(box.y for box in boxes)
    around = Box(x, y, max(b.right for b in boxes) - x, max(b.bottom for b in boxes) - y)
    pixels = store.read_image(around)
    for start in range(0, len(tiles), settings.batch_size):
        cut = slice(start, start + settings.batch_size)
        images = np.stack([pixels[box.slices(around)] for box in boxes[cut]])
        yield tiles[cut], run_model(model, images, settings)


def run_model(
    model: ConStruct, images: NDArray[np.uint8], settings: PredictConfig
) -> tuple[Array, Array]:
    """CAM logits ``(B, K, h, w)`` and class logits ``(B, K)`` float32 of ``(B, H, W, 3)`` tiles."""
    device = model.logit_scale.device
    # One thread on a CPU: blocks run side by side, and the bytes must not depend on how many do.
    threads = fixed_threads(1) if device.type == "cpu" else nullcontext()
    with threads, torch.inference_mode(), autocast(device, settings.precision):
        batch = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
        cams = augmented_cams(lambda x: model(x).cams, batch, model.encoder.mean, settings.tta)
        cams = cams.float()
        return cams.cpu().numpy(), cams.mean((2, 3)).cpu().numpy()


def cam_side(tile: int, encoder: Encoder, info: CheckpointInfo) -> int:
    """Cells along one side of a tile's CAM.

    Raises
    ------
    ConfigError
        If `tile` is no multiple of the encoder's coarsest cell.
    """
    coarsest = encoder.level_strides[-1]
    if tile % coarsest:
        nearest = max(1, round(tile / coarsest)) * coarsest
        raise ConfigError(
            f"tile {tile} is no multiple of {coarsest}, the coarsest cell of encoder "
            f"{info.encoder!r}; the nearest that works is {nearest}"
        )
    return tile // encoder.level_strides[encoder.cam_level]


_MODELS: dict[tuple[str, str, str, str], tuple[ConStruct, CheckpointInfo]] = {}
_LOADING = threading.Lock()


def _load_model(
    settings: PredictConfig, sha256: str, device: torch.device
) -> tuple[ConStruct, CheckpointInfo]:
    """The model, loaded once a process; threads share it, as it is only read."""
    key = (settings.checkpoint, sha256, str(device), repr(settings.encoder_options))
    with _LOADING:
        if key not in _MODELS:
            model, info = load_checkpoint(settings.checkpoint, settings.encoder_options)
            if info.sha256 != sha256:
                raise CheckpointError(
                    f"{settings.checkpoint}: is not the file that this run began with (sha256 "
                    f"{info.sha256[:12]}, not {sha256[:12]}); all workers need the same"
                )
            _MODELS[key] = model.to(device), info
        return _MODELS[key]


def _check_scale(store: SlideStore, info: CheckpointInfo) -> None:
    """Warn where tiles show more or less of the tissue than the patches that taught the model."""
    for what, tiles, patches in (
        ("µm/px", store.mpp, info.mpp),
        ("px a side", store.grid.tile, info.tile),
    ):
        if abs(tiles / patches - 1) > _TOLERANCE:
            warnings.warn(
                f"{store.path}: its tiles have {tiles:g} {what}, the checkpoint was trained at "
                f"{patches:g}; expect worse maps, or tile at the training scale",
                stacklevel=3,
            )
