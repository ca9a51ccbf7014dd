"""From CAMs to maps: blend overlapping tiles, gate, refine with the CRF, write labels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsiseg.annotations import BACKGROUND, UNSURE, Palette
from wsiseg.compute import Progress, Step, run_steps
from wsiseg.config import Config, CrfConfig, StitchConfig, digest_of
from wsiseg.errors import ConfigError
from wsiseg.geometry import Box
from wsiseg.grid import TileGrid
from wsiseg.lock import hold
from wsiseg.pyramid import halve_confidence, halve_labels, plan_pyramid
from wsiseg.stitch.blend import Tiles, place_tiles, reach
from wsiseg.stitch.context import context_digest, plan_context
from wsiseg.stitch.majority import majority_filter
from wsiseg.stitch.weigh import Pick, pick_confidence, pick_labels, weigh_classes, weigh_labels
from wsiseg.store import FORMAT, SlideStore
from wsiseg.tissue import mask_window, sample_tissue

__all__ = ["class_probabilities", "plan_stitch", "stitch_labels"]

_STEP = "stitch"
_VERSION = 6
"""Version of the arithmetic; part of the digest, so that a change redoes the work."""

_CRF_GRID = 8
"""Side in pixels of the squares into which the CRF's back ends divide an image."""


def stitch_labels(
    store_path: str | Path, config: Config, executor: Executor, progress: Progress | None = None
) -> str:
    """Write the store's label and confidence rasters, with their pyramids.

    The classes' probabilities are written too if the settings ask for them.

    Each block reads the tiles that reach it (and its margin) and sums them in a fixed order, so the
    result depends neither on the order of blocks nor on the executor. Pixels without tissue, or
    where no class was predicted, are background.

    Returns
    -------
    The digest with which the blocks are marked.

    Raises
    ------
    StoreError
        If the CAMs are missing or not finished.
    """
    with hold(store_path) as run:
        predict, cams = SlideStore(store_path).digests("predict", before="tile")
        steps = plan_stitch(store_path, config, predict, cams, run)
        stitch = steps[-1]
        pyramid = plan_pyramid(store_path, _STEP, stitch.digest, stitch.digests, run)
        run_steps(executor, [*steps, *pyramid], progress)
    return stitch.digest


def plan_stitch(
    store_path: str | Path, config: Config, predict: str, cams: Sequence[str], run: str = ""
) -> tuple[Step, ...]:
    """Plan the steps of `stitch_labels`.

    `predict` is the digest of the CAMs, `cams` their digests by block, `run` the token of the run
    that holds the store. The last step is the stitching itself; with ``gate: context`` the slide's
    context comes first.

    Raises
    ------
    StoreError
        If the arrays for the CAMs do not exist yet.
    """
    store = SlideStore(store_path)
    store.create_labels(_label_palette(store, config.stitch))
    if config.stitch.probabilities:
        store.create_probabilities()
    else:
        store.drop_probabilities()
    slide_wide = config.stitch.gate == "context"
    margin = _margin(config.stitch, store.mpp)
    needs = partial(_needed_blocks, store.grid, margin, slide_wide)
    digests = _block_digests(store, config.stitch, predict, cams, needs)
    digest, pending = store.plan(_STEP, digests, predict)
    work = partial(_stitch_block, store_path, run, config.stitch)
    step = Step(_STEP, digest, store.grid.n_blocks, pending, work, needs, digests=digests)
    if not slide_wide:
        return (step,)
    context = plan_context(store, config.stitch, predict, run)
    if not pending and store.context_digest == context.digest:  # what it lost, nobody needs
        context = replace(context, pending=[])
    return context, step


def _block_digests(
    store: SlideStore, config: StitchConfig, predict: str, cams: Sequence[str],
    needs: Callable[[int], Iterable[tuple[str, int]]],
) -> list[str]:  # fmt: skip
    """Digest what determines each block: the tissue, pixels and CAMs within its margin.

    With ``gate: context`` every block depends on the CAMs of the whole slide. Whether probabilities
    are stored is not part of it, as that changes no label.
    """
    settings = config.model_dump(mode="json", exclude={"probabilities", "context"})
    common = digest_of(_STEP, FORMAT, _VERSION, settings)
    if config.gate == "context":
        common = digest_of(common, context_digest(config, predict))
    margin, digests = _margin(config, store.mpp), []
    mask, mask_mpp, _ = store.read_tissue()
    for block in range(store.grid.n_blocks):
        outer = _outer_box(store.grid, margin, block)
        tissue = mask[mask_window(outer, mask_mpp / store.mpp).slices()]
        mask_hash = hashlib.sha256(np.packbits(tissue).tobytes()).hexdigest()
        mask_key = [mask_hash, *tissue.shape, mask_mpp]
        # The digest of a block's CAMs covers its pixels.
        sources = sorted({other for step, other in needs(block) if step != "context"})
        digests.append(digest_of(common, block, mask_key, [cams[other] for other in sources]))
    return digests


def _needed_blocks(
    grid: TileGrid, margin: int, slide_wide: bool, block: int
) -> Iterator[tuple[str, int]]:
    """Yield the blocks of pixels within the margin, and of the tiles that reach it, by step."""
    if slide_wide:
        yield "context", 0
    outer = _outer_box(grid, margin, block)
    yield from (("tile", other) for other in grid.blocks_touching(outer))
    owners = {grid.owner(*tile) for tile in _reaching(grid, outer)}
    yield from (("predict", other) for other in sorted(owners))


def _stitch_block(
    store_path: str | Path, run: str, config: StitchConfig, block: int, digest: str
) -> None:
    store = SlideStore(store_path, run)
    if store.is_done(_STEP, block, digest):
        return
    store.begin(_STEP, block)
    maps = _classify(store, config, block)
    if maps is None:  # the case for most of a slide, so it must cost next to nothing
        store.erase_labels(block)
        if config.probabilities:
            store.erase_probabilities(block)
    else:
        _write_pyramids(store, config, block, maps)
    store.mark_done(_STEP, block, digest)


def _write_pyramids(store: SlideStore, config: StitchConfig, block: int, maps: _Maps) -> None:
    labels, confidence, shares = maps
    for level in store.block_levels:
        if level:
            labels, confidence = halve_labels(labels), halve_confidence(confidence)
        store.write_labels(block, level, labels, confidence)
        if config.probabilities:
            shares = np.stack([halve_confidence(share) for share in shares]) if level else shares
            store.write_probabilities(block, level, shares)


class _Maps(NamedTuple):
    """The maps of one block."""

    labels: NDArray[np.uint8]
    """``(H, W)``."""
    confidence: NDArray[np.uint8]
    """``(H, W)``."""
    shares: NDArray[np.uint8]
    """``(K, H, W)`` the model's probability of each class, in 255ths; empty if not requested."""


def _classify(store: SlideStore, config: StitchConfig, block: int) -> _Maps | None:
    """Compute the maps of one block; None if all is background."""
    box = store.grid.block_box(block)
    outer = _outer_box(store.grid, _margin(config, store.mpp), block)
    tissue = sample_tissue(store, outer)
    if not tissue.any():
        return None
    # Only the box of the tissue and its margin is computed; the rest is background.
    part = _align(_bounding_box(tissue, outer).grow(_margin(config, store.mpp))).intersect(outer)
    placed = _place(store, config, part)
    if placed is None:
        return None
    pick = _pick(store, config, part, *placed, tissue[part.slices(outer)])
    labels, confidence = _label(pick, _radius(config, store.mpp), config.min_confidence)
    common, shares = part.intersect(box), pick.shares[: None if config.probabilities else 0]
    return _Maps(
        _frame(labels[common.slices(part)], common, box, BACKGROUND),
        _frame(confidence[common.slices(part)], common, box, 0),
        _frame(shares[(slice(None), *common.slices(part))], common, box, 0),
    )


def _frame(values: NDArray[np.uint8], part: Box, box: Box, outside: int) -> NDArray[np.uint8]:
    """Pad the values ``(..., H, W)`` of a `part` to its `box`, with `outside`."""
    if part == box:
        return np.ascontiguousarray(values)
    out = np.full((*values.shape[:-2], box.height, box.width), outside, np.uint8)
    out[(..., *part.slices(box))] = values
    return out


def _pick(
    store: SlideStore, config: StitchConfig, box: Box, fields: Tiles, gates: Tiles,
    tissue: NDArray[np.bool_],
) -> Pick:  # fmt: skip
    """Pick the labels of a box, by the CRF if it is on; the shares are the model's in any case.

    A CRF's marginals are near 0 or 1 however unsure the model is (Kraehenbuehl and Koltun 2011 do
    not use their values): they tell where borders run, but not how sure a label is.
    """
    classes = len(store.cam_palette)
    if not config.refine:
        return weigh_labels(fields, gates, tissue, classes)
    probabilities = weigh_classes(fields, gates, tissue, classes)
    possible = probabilities[-1] < 1
    pick = pick_labels(probabilities, possible)
    if possible.any():
        # The CRF does not look beyond its margin, so the rest need not be computed.
        crop = _align(_bounding_box(possible, box).grow(config.margin)).intersect(box)
        part = crop.slices(box)
        pick.winner[part] = _refine(
            probabilities[(slice(None), *part)], store.read_image(crop), pick.winner[part], crop,
            config.crf,
        )  # fmt: skip
        pick.winner[~possible] = classes
    return pick


def _radius(config: StitchConfig, mpp: float) -> int:
    return round(config.smooth_um / mpp)


def _margin(config: StitchConfig, mpp: float) -> int:
    """Return how many pixels around a block influence its labels."""
    return max(_radius(config, mpp), config.margin if config.refine else 0)


def _outer_box(grid: TileGrid, margin: int, block: int) -> Box:
    return _align(grid.block_box(block).grow(margin)).intersect(grid.box)


def _reaching(grid: TileGrid, box: Box) -> list[tuple[int, int]]:
    """List ``(row, col)`` of the tiles whose CAM or gate reaches a box, row-major."""
    return list(grid.touching(box.grow(reach(grid, 1))))


def class_probabilities(store: SlideStore, config: StitchConfig, box: Box) -> NDArray[np.float32]:
    """Compute ``(K + 1, H, W)`` float32 before the CRF: classes, then background; they sum to 1.

    The tiles' CAM logits blend to a field ``G``. Their gates (1 if the tile's label is predicted,
    otherwise 0; with ``gate: context`` the class's weight) blend to ``A``, more widely: a class
    fades in and out between the centres of neighbouring tiles instead of at their border. Then
    ``p_k`` is proportional to ``A_k exp(G_k)``; background has the share of tiles without an open
    gate, and everything outside the tissue. A pixel depends only on the tiles that reach it, so it
    has the same value in any box.
    """
    placed, tissue = _place(store, config, box), sample_tissue(store, box)
    if placed is None:
        probabilities = np.zeros((len(store.cam_palette) + 1, box.height, box.width), np.float32)
        probabilities[-1] = 1
        return probabilities
    return weigh_classes(*placed, tissue, len(store.cam_palette))


def _place(store: SlideStore, config: StitchConfig, box: Box) -> tuple[Tiles, Tiles] | None:
    """Place the CAMs and gates of the tiles that reach a box; None if there are no tiles."""
    first, cams, gates = _read_gated(store, config, box)
    if not np.isfinite(gates).any():
        return None
    return place_tiles(store.grid, box, first, cams), place_tiles(store.grid, box, first, gates)


def _read_gated(
    store: SlideStore, config: StitchConfig, box: Box
) -> tuple[tuple[int, int], NDArray[np.float32], NDArray[np.float32]]:
    """Read the first tile that reaches `box`, CAMs ``(rows, cols, C, h, w)`` and gates, float32.

    Gates are ``(rows, cols, C + 1, 1, 1)`` in [0, 1], one cell per tile: each channel's, then
    whether any is open.
    """
    tiles = _reaching(store.grid, box)
    (top, left), (bottom, right) = tiles[0], tiles[-1]
    cams, logits = store.read_cams(slice(top, bottom + 1), slice(left, right + 1))
    classes = len(store.cam_palette)
    if config.gate == "predicted":
        # sigmoid(logit) >= threshold, without computing the sigmoid
        threshold = np.log(config.gate_threshold / (1 - config.gate_threshold))
        gates = (logits >= threshold).astype(np.float32)
        gates[..., classes:] = 1  # background channels are always open
    else:
        gates = np.ones(logits.shape, np.float32)
        if config.gate == "context":
            weights = store.read_context(slice(top, bottom + 1), slice(left, right + 1))
            gates[..., :classes] = weights * np.float32(1 / 255)
    gates = np.concatenate([gates, gates.max(axis=-1, keepdims=True) > 0], axis=-1)
    gates[np.isnan(logits[..., 0])] = np.nan
    fields = cams.astype(np.float32)
    calibration = store.cam_calibration
    if calibration is not None:
        scale, offset = calibration.T[:, :, None, None]
        fields = fields * scale + offset
    return (top, left), fields, gates[..., None, None]


def _align(box: Box) -> Box:
    """Grow a box to whole squares of the CRF's grid, so that all crops have the same squares."""
    x, y = box.x // _CRF_GRID * _CRF_GRID, box.y // _CRF_GRID * _CRF_GRID
    right, bottom = -(-box.right // _CRF_GRID), -(-box.bottom // _CRF_GRID)
    return Box(x, y, right * _CRF_GRID - x, bottom * _CRF_GRID - y)


def _bounding_box(mask: NDArray[np.bool_], frame: Box) -> Box:
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(cols[0])
    height, width = int(rows[-1]) + 1 - top, int(cols[-1]) + 1 - left
    return Box(frame.x + left, frame.y + top, width, height)


def _refine(
    probabilities: NDArray[np.float32], image: NDArray[np.uint8], winners: NDArray[np.uint8],
    box: Box, config: CrfConfig,
) -> NDArray[np.uint8]:  # fmt: skip
    """Return the CRF's labels ``(H, W)`` of a box; `winners` are the labels before it."""
    import torch  # heavy, and not needed without the CRF

    from wsiseg.model.crf import refine_labels

    prior, pixels = torch.from_numpy(probabilities), torch.from_numpy(np.moveaxis(image, 2, 0))
    before, corner = torch.from_numpy(winners)[None], (box.x, box.y)
    return refine_labels(prior[None], pixels[None], config, corner, before)[0].cpu().numpy()


def _label(
    pick: Pick, radius: int, threshold: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the picked classes, smoothed, and their probability; background elsewhere.

    Pixels whose class is less probable than `threshold` are labelled K, which is `UNSURE`.
    """
    winner, classes = pick.winner, len(pick.shares)
    background = classes + 1 if threshold else classes
    if threshold:
        unsure = pick_confidence(pick.shares, winner) < 255 * threshold
        winner = np.where(winner == classes, np.uint8(background), winner)
        winner[unsure & (winner < classes)] = classes
    labels = majority_filter(winner, radius, background + 1)
    labels[~pick.possible | (labels == background)] = BACKGROUND
    return labels, pick_confidence(pick.shares, labels)


def _label_palette(store: SlideStore, config: StitchConfig) -> Palette:
    palette = store.cam_palette
    if not config.min_confidence:
        return palette
    if UNSURE in palette.names:
        raise ConfigError(
            f"stitch.min_confidence = {config.min_confidence:g} labels unsure tissue "
            f"{UNSURE!r}, but the model has a class of this name; set it to 0"
        )
    return palette.with_unsure()
