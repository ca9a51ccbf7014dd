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
"""Of the arithmetic here: a digest holds it, so that other sums redo the work."""

_CRF_GRID = 8
"""Pixels a side of the squares into which the CRF's back ends cut an image from its corner."""


def stitch_labels(
    store_path: str | Path, config: Config, executor: Executor, progress: Progress | None = None
) -> str:
    """Write the store's label and confidence rasters, with their pyramids.

    And, if the settings ask for them, the classes' probabilities.

    Each block pulls the tiles that reach it (and its margin) and sums them in a fixed order, so
    neither the order nor the executor shows in the result. Background is what is no tissue, and
    where no class was predicted.

    Returns
    -------
    The digest that the blocks are marked with.

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
    """What `stitch_labels` has to do once there are CAMs of the digest `predict`, `cams` by block.

    The last step is the stitching itself; with ``gate: context`` the slide's context comes before.
    `run` is the token of the run that holds the store.

    Raises
    ------
    StoreError
        If the arrays for the CAMs were not made yet.
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
    return (context if pending else replace(context, pending=[])), step


def _block_digests(
    store: SlideStore, config: StitchConfig, predict: str, cams: Sequence[str],
    needs: Callable[[int], Iterable[tuple[str, int]]],
) -> list[str]:  # fmt: skip
    """Of what makes each block: the tissue, pixels and CAMs within its margin.

    With ``gate: context`` the CAMs of the whole slide decide a little, so every block hangs on all.
    Not of whether probabilities are kept: they are there or not, and change no label.
    """
    told = config.model_dump(mode="json", exclude={"probabilities", "context"})
    common = digest_of(_STEP, FORMAT, _VERSION, told)
    if config.gate == "context":
        common = digest_of(common, context_digest(config, predict))
    margin, digests = _margin(config, store.mpp), []
    mask, mask_mpp, _ = store.read_tissue()
    for block in range(store.grid.n_blocks):
        outer = _outer_box(store.grid, margin, block)
        tissue = mask[mask_window(outer, mask_mpp / store.mpp).slices()]
        seen = [hashlib.sha256(np.packbits(tissue).tobytes()).hexdigest(), *tissue.shape, mask_mpp]
        # The pixels of a block are named by the digest of its CAMs.
        around = sorted({other for step, other in needs(block) if step != "context"})
        digests.append(digest_of(common, block, seen, [cams[other] for other in around]))
    return digests


def _needed_blocks(
    grid: TileGrid, margin: int, slide_wide: bool, block: int
) -> Iterator[tuple[str, int]]:
    """The blocks of pixels within a block's margin, and those that own the tiles reaching it."""
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
    found = _classify(store, config, block)
    if found is None:  # most of a slide: what costs nothing here makes the whole cheap
        store.erase_labels(block)
        if config.probabilities:
            store.erase_probabilities(block)
    else:
        _write_pyramids(store, config, block, found)
    store.mark_done(_STEP, block, digest)


def _write_pyramids(store: SlideStore, config: StitchConfig, block: int, found: _Maps) -> None:
    labels, confidence, shares = found
    for level in store.block_levels:
        if level:
            labels, confidence = halve_labels(labels), halve_confidence(confidence)
        store.write_labels(block, level, labels, confidence)
        if config.probabilities:
            shares = np.stack([halve_confidence(share) for share in shares]) if level else shares
            store.write_probabilities(block, level, shares)


class _Maps(NamedTuple):
    """What one block comes to."""

    labels: NDArray[np.uint8]
    """``(H, W)``."""
    confidence: NDArray[np.uint8]
    """``(H, W)``."""
    shares: NDArray[np.uint8]
    """``(K, H, W)`` probability of each class, as the model has it; empty if unasked."""


def _classify(store: SlideStore, config: StitchConfig, block: int) -> _Maps | None:
    """Maps of one block; None if all is background."""
    box = store.grid.block_box(block)
    outer = _outer_box(store.grid, _margin(config, store.mpp), block)
    tissue = sample_tissue(store, outer)
    if not tissue.any():
        return None
    # Background is known beforehand: only what tissue and its margin lie in is computed.
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
    """``(..., H, W)`` of `box`, from those of a `part` of it."""
    if part == box:
        return np.ascontiguousarray(values)
    out = np.full((*values.shape[:-2], box.height, box.width), outside, np.uint8)
    out[(..., *part.slices(box))] = values
    return out


def _pick(
    store: SlideStore, config: StitchConfig, box: Box, fields: Tiles, gates: Tiles,
    tissue: NDArray[np.bool_],
) -> Pick:  # fmt: skip
    """Winners of a box, by the CRF if there is one, and shares as the model alone has them.

    A CRF's marginals are near 0 or 1 whatever the model knows (Kraehenbuehl and Koltun 2011 have
    no use for their values), so they say where borders run and not how sure a label is.
    """
    classes = len(store.cam_palette)
    if not config.refine:
        return weigh_labels(fields, gates, tissue, classes)
    probabilities = weigh_classes(fields, gates, tissue, classes)
    possible = probabilities[-1] < 1
    pick = pick_labels(probabilities, possible)
    if possible.any():
        # The CRF sees no farther than its margin, so what lies beyond it need not be computed.
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
    """Pixels around a block that decide its labels."""
    return max(_radius(config, mpp), config.margin if config.refine else 0)


def _outer_box(grid: TileGrid, margin: int, block: int) -> Box:
    return _align(grid.block_box(block).grow(margin)).intersect(grid.box)


def _reaching(grid: TileGrid, box: Box) -> list[tuple[int, int]]:
    """``(row, col)`` of the tiles whose CAM or gate reaches a box, row-major."""
    return list(grid.touching(box.grow(reach(grid, 1))))


def class_probabilities(store: SlideStore, config: StitchConfig, box: Box) -> NDArray[np.float32]:
    """``(K + 1, H, W)`` float32 before the CRF: the classes, then background; they sum to 1.

    The tiles' CAM logits blend to a field ``G``, their gates (1 where the tile's label is
    predicted, else 0; with ``gate: context`` its weight there) to ``A``, more widely: a class fades
    in and out between the centres of neighbouring tiles instead of at their border. Then ``p_k`` is
    ``A_k exp(G_k)``, normalised to leave to background the share of tiles that let nothing through,
    or all where there is no tissue.
    A pixel depends on the tiles that reach it only, so that any box gives it the same value.
    """
    placed, tissue = _place(store, config, box), sample_tissue(store, box)
    if placed is None:
        probabilities = np.zeros((len(store.cam_palette) + 1, box.height, box.width), np.float32)
        probabilities[-1] = 1
        return probabilities
    return weigh_classes(*placed, tissue, len(store.cam_palette))


def _place(store: SlideStore, config: StitchConfig, box: Box) -> tuple[Tiles, Tiles] | None:
    """CAMs and gates of the tiles that reach a box; None if there are none."""
    first, cams, gates = _read_gated(store, config, box)
    if not np.isfinite(gates).any():
        return None
    return place_tiles(store.grid, box, first, cams), place_tiles(store.grid, box, first, gates)


def _read_gated(
    store: SlideStore, config: StitchConfig, box: Box
) -> tuple[tuple[int, int], NDArray[np.float32], NDArray[np.float32]]:
    """The first tile that reaches `box`, CAMs ``(rows, cols, K, h, w)`` and gates float32.

    Gates are ``(rows, cols, C + 1, 1, 1)`` in [0, 1], one cell a tile: each channel, then whether
    any is let through.
    """
    tiles = _reaching(store.grid, box)
    (top, left), (bottom, right) = tiles[0], tiles[-1]
    cams, logits = store.read_cams(slice(top, bottom + 1), slice(left, right + 1))
    classes = len(store.cam_palette)
    if config.gate == "predicted":
        # sigmoid(logit) >= threshold, without computing the sigmoid
        threshold = np.log(config.gate_threshold / (1 - config.gate_threshold))
        gates = (logits >= threshold).astype(np.float32)
        gates[..., classes:] = 1  # kinds of background may always win
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
    """The box grown to whole squares of the CRF's grid, so that crops meet the same squares."""
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
    """``(H, W)`` the CRF's labels of a box; `winners` are those before it."""
    import torch  # heavy, and not needed without the CRF

    from wsiseg.model.crf import refine_labels

    prior, pixels = torch.from_numpy(probabilities), torch.from_numpy(np.moveaxis(image, 2, 0))
    before, corner = torch.from_numpy(winners)[None], (box.x, box.y)
    return refine_labels(prior[None], pixels[None], config, corner, before)[0].cpu().numpy()


def _label(pick: Pick, radius: int, least: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The most probable class, smoothed, and its probability; background elsewhere.

    With `least`, pixels of a class whose probability is below it are labelled K, `UNSURE`.
    """
    winner, classes = pick.winner, len(pick.shares)
    background = classes + 1 if least else classes
    if least:
        doubted = pick_confidence(pick.shares, winner) < 255 * least
        winner = np.where(winner == classes, np.uint8(background), winner)
        winner[doubted & (winner < classes)] = classes
    labels = majority_filter(winner, radius, background + 1)
    labels[~pick.possible | (labels == background)] = BACKGROUND
    return labels, pick_confidence(pick.shares, labels)


def _label_palette(store: SlideStore, config: StitchConfig) -> Palette:
    palette = store.cam_palette
    if not config.min_confidence:
        return palette
    if UNSURE in palette.names:
        raise ConfigError(
            f"stitch.min_confidence = {config.min_confidence:g} labels what is in doubt "
            f"{UNSURE!r}, which is a class of the model already; set it to 0"
        )
    return palette.with_unsure()
