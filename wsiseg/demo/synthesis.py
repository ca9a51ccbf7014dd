"""Synthetic H&E slides with known truth, for the demo and for tests.

>>> from wsiseg.demo import sample_patches, synthesize_slide
>>> truth = synthesize_slide("one.svs", width=12_000, height=9_000, seed=1)  # doctest: +SKIP
>>> csv = sample_patches("one.svs", truth, "patches", count=400, seed=1)  # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsiseg.demo.layout import MPP, RARE, Truth, plan_layout
from wsiseg.demo.nuclei import scatter_nuclei
from wsiseg.demo.paint import make_brush, paint_strip
from wsiseg.demo.svs import TILE, write_svs
from wsiseg.geometry import Size

__all__ = ["Truth", "synthesize_slide"]

_AHEAD = 4  # strips painted before they are written


def synthesize_slide(
    path: str | Path, width: int, height: int, seed: int, tissue: bool = True, rare: float = RARE
) -> Truth:
    """Write an Aperio-style SVS of synthetic tissue and return its truth.

    Level 0 is at 0.25 µm/px (40x), with levels x4 and x16, thumbnail, label and macro. Tumour nests
    with thin strands of stroma, immune clusters, necrosis, lumina and tears; lymphocytes strewn
    over all of it belong to the class around them. The seed decides everything, the stain too: one
    seed, one file, byte for byte, whatever the number of cores.

    Parameters
    ----------
    path
        The ``.svs`` file; overwritten if it exists.
    width, height
        Level-0 pixels, at least 256 each.
    seed
        Seed of the layout, the textures and the batch of stain.
    tissue
        ``False`` gives blank glass.
    rare
        Share of the tissue that necrosis covers, and of the rest immune cells, in (0, 0.3].

    Returns
    -------
    The class of every pixel at 0.5 µm/px.

    Raises
    ------
    GeometryError
        If a side is too short to hold tissue, or `rare` is out of range.
    """
    size = Size(width, height)
    layout_rng, nuclei_rng, brush_rng = map(
        np.random.default_rng, np.random.SeedSequence(seed).spawn(3)
    )
    layout = plan_layout(size, layout_rng, tissue, rare)
    paint = partial(paint_strip, layout, scatter_nuclei(layout, nuclei_rng), make_brush(brush_rng))
    workers = min(4, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as painters, ThreadPoolExecutor(workers) as encoders:
        strips = _paint_ahead(paint, height, painters)
        write_svs(Path(path), size, strips, MPP, encoders)
    return layout.truth


def _paint_ahead(
    paint: Callable[[int, int], NDArray[np.uint8]], height: int, painters: ThreadPoolExecutor
) -> Iterator[NDArray[np.uint8]]:
    """Yield strips in order; a few are painted while one is written."""
    waiting: deque[Future[NDArray[np.uint8]]] = deque()
    for top in range(0, height, TILE):
        waiting.append(painters.submit(paint, top, min(top + TILE, height)))
        if len(waiting) == _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
