"""The step that writes the coarse levels, each shard from the finished shards of the finer level.

The result is identical to what the blocks would have written themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsiseg.compute import SerialExecutor, Step, run_steps
from wsiseg.config import digest_of
from wsiseg.geometry import Box
from wsiseg.pyramid.halve import halve_confidence, halve_labels
from wsiseg.shrink import shrink_mean
from wsiseg.store import FORMAT, SlideStore
from wsiseg.store.levels import Levels, Part, pyramid_of

__all__ = ["plan_pyramid", "write_pyramid"]

_VERSION = 1
"""Version of this step; digests include it, so that a change redoes the work."""

_Read = Callable[[SlideStore, Box, int], NDArray[np.uint8]]
_Shrink = Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]


class _Kind(NamedTuple):
    """An array with levels: its name in the store, and how to read and shrink it."""

    name: str
    read: _Read
    shrink: _Shrink


def _shrink_shares(shares: NDArray[np.uint8], _factor: int) -> NDArray[np.uint8]:
    """Halve ``(K, H, W)`` to ``(h, w, K)``, the order in which it is stored."""
    return np.stack([halve_confidence(share) for share in shares], axis=-1)


_KINDS = {
    "tile": (_Kind("image", SlideStore.read_image, shrink_mean),),
    "stitch": (
        _Kind("labels/classes", SlideStore.read_labels, lambda values, _: halve_labels(values)),
        _Kind(
            "labels/confidence",
            SlideStore.read_confidence,
            lambda values, _: halve_confidence(values),
        ),
        _Kind("probabilities", SlideStore.read_probabilities, _shrink_shares),
    ),
}


class _Finer(NamedTuple):
    """The shards of the next finer level that a part is made from, row-major."""

    step: str
    """The step that writes them."""
    names: tuple[str, ...]
    """The name that each kind has in that step."""
    blocks: tuple[int, ...]
    boxes: tuple[Box, ...]
    """In pixels of the finer level."""


def plan_pyramid(
    store_path: str | Path, of: str, digest: str, digests: Sequence[str], run: str = ""
) -> list[Step]:
    """Plan the step that writes the coarse levels of what `of` (``tile`` or ``stitch``) makes.

    Its blocks are shards; each can start when the finer shards that it is made from are done.

    Parameters
    ----------
    digest, digests
        Of the step `of`, and of each of its blocks.
    run
        Token of the run that holds the store.

    Returns
    -------
    The step; an empty list if blocks write all levels.
    """
    store, name = SlideStore(store_path), pyramid_of(of)
    parts = store.coarse_parts(name)
    if not parts:
        return []
    sources = [_find_finer(store, of, block) for block in range(len(parts))]
    known_digests: dict[str, Sequence[str]] = {of: digests, name: (own_digests := [])}
    for block, source in enumerate(sources):
        inputs = [known_digests[source.step][other] for other in source.blocks]
        own_digests.append(digest_of(name, FORMAT, _VERSION, block, inputs))
    step_digest, pending = store.plan(name, own_digests, digest)
    work, dependencies = partial(_write_part, store_path, run, of), partial(_dependencies, sources)
    return [Step(name, step_digest, len(parts), pending, work, dependencies, digests=own_digests)]


def write_pyramid(store_path: str | Path, of: str) -> None:
    """Write all coarse levels of what the step `of` made, serially.

    For stores that were not filled by `tile_slide` or `stitch_labels`.

    Raises
    ------
    StoreError
        If the step has not finished.
    """
    steps = plan_pyramid(store_path, of, *SlideStore(store_path).digests(of))
    run_steps(SerialExecutor(), steps)


def _dependencies(sources: Sequence[_Finer], block: int) -> Iterator[tuple[str, int]]:
    step, _, blocks, _ = sources[block]
    return ((step, finer) for finer in blocks)


def _find_finer(store: SlideStore, of: str, block: int) -> _Finer:
    kind_names, levels, step = [kind.name for kind in _KINDS[of]], store.levels, pyramid_of(of)
    parts, factors = store.coarse_parts(step), _factors(levels, of)
    level, row, col = parts[block]
    finer = factors[level - 1]
    box = _scale(_square(levels.shard(factors[level]), row, col), factors[level] // finer)
    box, side = box.intersect(levels.box(finer)), levels.shard(finer)
    rows = range(box.y // side, -(-box.bottom // side))
    cols = range(box.x // side, -(-box.right // side))
    boxes = tuple(_square(side, y, x) for y in rows for x in cols)
    if levels.by_block(finer):
        names = tuple(f"{kind}/{level - 1}" for kind in kind_names)
        across = store.grid.block_cols
        return _Finer(of, names, tuple(y * across + x for y in rows for x in cols), boxes)
    blocks = tuple(parts.index(Part(level - 1, y, x)) for y in rows for x in cols)
    return _Finer(step, tuple(kind_names), blocks, boxes)


def _write_part(store_path: str | Path, run: str, of: str, block: int, digest: str) -> None:
    """Write one shard of each array, and mark the block as done."""
    store, step = SlideStore(store_path, run), pyramid_of(of)
    source = _find_finer(store, of, block)
    store.begin(step, block)
    written = store.has_written(source.step, source.blocks, source.names)
    for kind, present in zip(_KINDS[of], zip(*written, strict=True), strict=True):
        if kind.name == "probabilities" and not store.has_probabilities:
            continue
        # Most of a slide is glass: do not read it.
        filled = [box for box, is_present in zip(source.boxes, present, strict=True) if is_present]
        level = store.coarse_parts(step)[block].level
        pixels = partial(_shrink, store, kind, level, _factors(store.levels, of), filled)
        store.write_coarse(step, kind.name, block, pixels)
    store.mark_done(step, block, digest)


def _shrink(
    store: SlideStore, kind: _Kind, level: int, factors: Sequence[int], filled: Sequence[Box],
    box: Box,
) -> NDArray[np.uint8] | None:  # fmt: skip
    """Compute a box of a level from the next finer one; None if the finer one is empty there."""
    ratio, finer = factors[level] // factors[level - 1], store.levels.box(factors[level - 1])
    source = _scale(box, ratio).intersect(finer)
    if all(source.intersect(one).empty for one in filled):
        return None
    return kind.shrink(kind.read(store, source, level - 1), ratio)


def _factors(levels: Levels, of: str) -> tuple[int, ...]:
    return levels.image if of == "tile" else levels.maps


def _square(side: int, row: int, col: int) -> Box:
    return Box(col * side, row * side, side, side)


def _scale(box: Box, factor: int) -> Box:
    return Box(*(length * factor for length in box))
