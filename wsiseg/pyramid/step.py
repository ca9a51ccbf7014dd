"""The step that writes the coarse levels: each shard from the next finer level, once that is there.

Nothing is computed anew, and squares are cut where blocks would cut them, so the levels are what
they would be if blocks had written them.
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
"""Of what is here: a digest holds it, so that others redo the work."""

_Read = Callable[[SlideStore, Box, int], NDArray[np.uint8]]
_Shrink = Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]


class _Kind(NamedTuple):
    """What has levels: its name in the store, and how it is read, shrunk and stored."""

    name: str
    read: _Read
    shrink: _Shrink


def _shrink_shares(shares: NDArray[np.uint8], _factor: int) -> NDArray[np.uint8]:
    """``(K, H, W)`` to ``(h, w, K)``, as it is stored."""
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


class _Under(NamedTuple):
    """The shards of the next finer level under a part, row-major."""

    step: str
    """Who writes them."""
    names: tuple[str, ...]
    """Of each kind, as that step has it."""
    blocks: tuple[int, ...]
    boxes: tuple[Box, ...]
    """In pixels of their level."""


def plan_pyramid(
    store_path: str | Path, of: str, digest: str, digests: Sequence[str], run: str = ""
) -> list[Step]:
    """What is to be done of the coarse levels of what `of`, ``tile`` or ``stitch``, makes.

    Its blocks are shards, each of which begins when those under it are there. The digests are those
    of the step `of` and of its blocks; `run` is the token of the run that holds the store.

    Returns
    -------
    The step; none where blocks write all levels.
    """
    store, name = SlideStore(store_path), pyramid_of(of)
    parts = store.coarse_parts(name)
    if not parts:
        return []
    unders = [_look_under(store, of, block) for block in range(len(parts))]
    known: dict[str, Sequence[str]] = {of: digests, name: (ours := [])}
    for block, under in enumerate(unders):
        made_of = [known[under.step][other] for other in under.blocks]
        ours.append(digest_of(name, FORMAT, _VERSION, block, made_of))
    whole, pending = store.plan(name, ours, digest)
    work, needs = partial(_write_part, store_path, run, of), partial(_needed, unders)
    return [Step(name, whole, len(parts), pending, work, needs, digests=ours)]


def write_pyramid(store_path: str | Path, of: str) -> None:
    """Make all coarse levels of what the step `of` made, here and now.

    For stores that something else than `tile_slide` or `stitch_labels` filled and marked.

    Raises
    ------
    StoreError
        If the step did not finish.
    """
    steps = plan_pyramid(store_path, of, *SlideStore(store_path).digests(of))
    run_steps(SerialExecutor(), steps)


def _needed(unders: Sequence[_Under], block: int) -> Iterator[tuple[str, int]]:
    step, _, blocks, _ = unders[block]
    return ((step, other) for other in blocks)


def _look_under(store: SlideStore, of: str, block: int) -> _Under:
    kinds, levels, step = [kind.name for kind in _KINDS[of]], store.levels, pyramid_of(of)
    parts, factors = store.coarse_parts(step), _factors(levels, of)
    level, row, col = parts[block]
    finer = factors[level - 1]
    box = _scale(_square(levels.shard(factors[level]), row, col), factors[level] // finer)
    box, side = box.intersect(levels.box(finer)), levels.shard(finer)
    rows = range(box.y // side, -(-box.bottom // side))
    cols = range(box.x // side, -(-box.right // side))
    boxes = tuple(_square(side, y, x) for y in rows for x in cols)
    if levels.by_block(finer):
        names = tuple(f"{kind}/{level - 1}" for kind in kinds)
        across = store.grid.block_cols
        return _Under(of, names, tuple(y * across + x for y in rows for x in cols), boxes)
    blocks = tuple(parts.index(Part(level - 1, y, x)) for y in rows for x in cols)
    return _Under(step, tuple(kinds), blocks, boxes)


def _write_part(store_path: str | Path, run: str, of: str, block: int, digest: str) -> None:
    """Write one shard of each array, and mark it."""
    store, step = SlideStore(store_path, run), pyramid_of(of)
    under = _look_under(store, of, block)
    store.begin(step, block)
    written = store.has_written(under.step, under.blocks, under.names)
    for kind, there in zip(_KINDS[of], zip(*written, strict=True), strict=True):
        if kind.name == "probabilities" and not store.has_probabilities:
            continue
        # Most of a slide is glass, of which nothing is read.
        filled = [box for box, known in zip(under.boxes, there, strict=True) if known]
        level = store.coarse_parts(step)[block].level
        pixels = partial(_shrink, store, kind, level, _factors(store.levels, of), filled)
        store.write_coarse(step, kind.name, block, pixels)
    store.mark_done(step, block, digest)


def _shrink(
    store: SlideStore, kind: _Kind, level: int, factors: Sequence[int], filled: Sequence[Box],
    box: Box,
) -> NDArray[np.uint8] | None:  # fmt: skip
    """A box of a level, from the next finer one; None if there is nothing under it."""
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
