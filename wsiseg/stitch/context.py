"""The slide context of a store: one small task after all CAMs and before the first map."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsiseg.compute import Step
from wsiseg.config import StitchConfig, digest_of
from wsiseg.context import weigh_context
from wsiseg.store import FORMAT, SlideStore

__all__ = ["context_digest", "plan_context"]

_STEP = "context"
_VERSION = 1
"""Version of the arithmetic here and in `wsiseg.context`."""


def context_digest(config: StitchConfig, predict: str) -> str:
    """Digest what determines the slide context: its settings and the CAMs of the whole slide."""
    return digest_of(_STEP, FORMAT, _VERSION, config.context, predict)


def plan_context(store: SlideStore, config: StitchConfig, predict: str, run: str = "") -> Step:
    """Plan the step that runs after all CAMs and before any block is stitched.

    `predict` is the digest of all CAMs, `run` the token of the run that holds the store.
    """
    digest = context_digest(config, predict)
    pending = [] if store.has_context(digest) else [0]
    work = partial(_weigh_slide, store.location, run, config)
    needs = partial(_all_cams, store.grid.n_blocks)
    return Step(_STEP, digest, 1, pending, work, needs, digests=[digest])


def _all_cams(blocks: int, block: int) -> Iterator[tuple[str, int]]:
    yield from (("predict", other) for other in range(blocks))


def _weigh_slide(
    store_path: str | Path, run: str, config: StitchConfig, block: int, digest: str
) -> None:
    store = SlideStore(store_path, run)
    grid, classes = store.grid, len(store.cam_palette)
    logits = store.read_class_logits(slice(0, grid.rows), slice(0, grid.cols))[..., :classes]
    tiles = np.argwhere(np.isfinite(logits[..., 0]))
    rows, cols = tiles.T
    positions = tiles.astype(np.float64) * (grid.stride / grid.tile)
    context = weigh_context(logits[rows, cols], positions, config.context)
    weights = np.zeros(logits.shape, np.uint8)
    weights[rows, cols] = _to_255ths(context.weights)
    store.write_context(weights, digest, context.shares.round(6).tolist())


def _to_255ths(weights: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Round weights to 255ths; positive ones stay positive."""
    return np.where(weights > 0, np.maximum(np.rint(255 * weights), 1), 0).astype(np.uint8)
